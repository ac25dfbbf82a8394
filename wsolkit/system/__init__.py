"""The machine under it all: folders, files never half-written, progress, processes, plug-ins."""
