"""What a notebook works with: its runs, its tables beside the paper's, its figures, and the paper's claims."""

from wsolkit.study.study import Study, open_study

__all__ = ["Study", "open_study"]
