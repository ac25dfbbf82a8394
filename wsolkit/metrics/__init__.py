"""From score maps to numbers, as the WSOL benchmark does it: boxes, IoU, and the meters built on them."""

from wsolkit.metrics.meters import (
    GT_KNOWN_IOU,
    IOU_THRESHOLDS,
    BoxMeter,
    Contours,
    PixelMeter,
    box_rates,
    in_top_k,
    pixel_rates,
    threshold_range,
    top_k_loc,
)

__all__ = [
    "GT_KNOWN_IOU",
    "IOU_THRESHOLDS",
    "BoxMeter",
    "Contours",
    "PixelMeter",
    "box_rates",
    "in_top_k",
    "pixel_rates",
    "threshold_range",
    "top_k_loc",
]
