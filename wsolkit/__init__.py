"""The reproducibility kit for Kim et al., "Bridging the Gap between Classification and Localization" (CVPR 2022)."""
