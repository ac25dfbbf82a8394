"""The meters as metrics of torchmetrics: synchronised over processes, and taken by whatever takes those.

The meters themselves are not built on ``torchmetrics.Metric``, since they judge on the CPU and count with NumPy, and
most who use them need nothing of it. Here its states are the meters' counts, which add up over processes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from wsolkit.metrics.meters import BoxMeter, PixelMeter, box_rates, pixel_rates


class BoxMetric(Metric):
    """`wsolkit.metrics.meters.BoxMeter` as a metric; arguments are the meter's."""

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    images: Tensor

    def __init__(self, *args: Any, **options: Any):
        """Set the protocol."""
        super().__init__()
        self._meter = BoxMeter(*args, **options)
        self.add_state("hits", torch.from_numpy(self._meter.hits.copy()), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, score_maps: Tensor, boxes: Sequence[np.ndarray]) -> None:
        """Add images, as the meter does."""
        self._meter.reset()
        self._meter.update(score_maps.detach().cpu(), boxes)
        self.hits += torch.from_numpy(self._meter.hits).to(self.hits.device)
        self.images += self._meter.images

    def compute(self) -> dict[str, Tensor]:
        """``max_box_acc_<delta>`` at each IoU threshold, and ``max_box_acc_v2``, their mean."""
        meter = self._meter
        rates = box_rates(self.hits.cpu().numpy(), int(self.images), meter.thresholds, meter.iou_thresholds)
        found = {f"max_box_acc_{delta}": value for delta, value in rates["max_box_acc"].items()}
        return {
            name: torch.tensor(value) for name, value in {**found, "max_box_acc_v2": rates["max_box_acc_v2"]}.items()
        }


class PixelMetric(Metric):
    """`wsolkit.metrics.meters.PixelMeter` as a metric; arguments are the meter's."""

    full_state_update = False
    higher_is_better = True
    foreground: Tensor
    background: Tensor

    def __init__(self, *args: Any, **options: Any):
        """Set the protocol."""
        super().__init__()
        self._meter = PixelMeter(*args, **options)
        for name in ("foreground", "background"):
            self.add_state(name, torch.from_numpy(getattr(self._meter, name).copy()), dist_reduce_fx="sum")

    def update(self, score_maps: Tensor, masks: Tensor) -> None:
        """Add images, as the meter does."""
        self._meter.reset()
        self._meter.update(score_maps.detach().cpu(), masks.cpu())
        self.foreground += torch.from_numpy(self._meter.foreground).to(self.foreground.device)
        self.background += torch.from_numpy(self._meter.background).to(self.background.device)

    def compute(self) -> dict[str, Tensor]:
        """``pxap``."""
        return {"pxap": torch.tensor(pixel_rates(self.foreground.cpu().numpy(), self.background.cpu().numpy())["pxap"])}
