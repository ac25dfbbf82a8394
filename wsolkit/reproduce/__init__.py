"""Many notebooks at once: planned, executed by papermill, and shown on one page."""
