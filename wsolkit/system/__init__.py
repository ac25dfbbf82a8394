"""The machine under it all: folders, files never half-written, progress, processes, the plug-in registry."""
