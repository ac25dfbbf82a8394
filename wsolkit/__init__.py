"""The reproducibility kit for Kim et al., "Bridging the Gap between Classification and Localization" (CVPR 2022)."""

__version__ = "0.1.0"
