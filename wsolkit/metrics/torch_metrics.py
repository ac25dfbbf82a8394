"""The meters as metrics of torchmetrics: synchronised over processes, and usable wherever such metrics are.

The meters themselves are not built on ``torchmetrics.Metric``, since they judge on the CPU and count with NumPy, and
most of their users need nothing of it. The states of a metric are its meter's counts, which add up over processes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from wsolkit.metrics.checks import Array
from wsolkit.metrics.meters import BoxMeter, PixelMeter, box_rates, pixel_rates


class _MeterMetric(Metric):
    """A meter's counts as the states of a metric."""

    full_state_update = False
    higher_is_better = True
    counts: ClassVar[tuple[str, ...]]

    def __init__(self, meter: BoxMeter | PixelMeter):
        super().__init__()
        self._meter: Any = meter
        for name in self.counts:
            self.add_state(name, torch.tensor(getattr(meter, name)), dist_reduce_fx="sum")

    def forward(self, *args: Any, **options: Any) -> dict[str, Tensor]:
        """Add a batch and return its own rates.

        Raises:
            ValueError: as in ``update``, or where a batch alone has no rates. Nothing is added then, and the images
                before it are kept, which torchmetrics itself would drop.
        """
        before = dict(self.__dict__)  # torchmetrics replaces its states while it judges a batch, and keeps the tensors
        try:
            return super().forward(*args, **options)
        except BaseException:
            self.__dict__.update(before)
            raise

    def _add(self, score_maps: Array, truth: Any) -> None:
        self._meter.reset()
        self._meter.update(score_maps, truth)
        for name in self.counts:
            state = getattr(self, name)
            state += torch.as_tensor(getattr(self._meter, name), device=state.device)


class BoxMetric(_MeterMetric):
    """`wsolkit.metrics.meters.BoxMeter` as a metric; arguments are the meter's."""

    counts = ("hits", "images")
    hits: Tensor
    images: Tensor

    def __init__(self, *args: Any, **options: Any):
        """Set the protocol."""
        super().__init__(meter := BoxMeter(*args, **options))
        # A MetricCollection takes metrics whose states are equal after the first batch for one and the same.
        protocol = torch.tensor([meter.contours == "all", *meter.iou_thresholds])
        self.add_state("protocol", protocol, dist_reduce_fx="max")

    def update(self, score_maps: Array, boxes: Sequence[Array]) -> None:
        """Add images, as the meter does."""
        self._add(score_maps, boxes)

    def compute(self) -> dict[str, Tensor]:
        """``max_box_acc_<delta>`` at each IoU threshold, and ``max_box_acc_v2``, their mean."""
        meter = self._meter
        rates = box_rates(self.hits.cpu().numpy(), int(self.images), meter.thresholds, meter.iou_thresholds)
        found = {f"max_box_acc_{delta}": torch.tensor(value) for delta, value in rates["max_box_acc"].items()}
        return {**found, "max_box_acc_v2": torch.tensor(rates["max_box_acc_v2"])}


class PixelMetric(_MeterMetric):
    """`wsolkit.metrics.meters.PixelMeter` as a metric; arguments are the meter's."""

    counts = ("foreground", "background")
    foreground: Tensor
    background: Tensor

    def __init__(self, *args: Any, **options: Any):
        """Set the protocol."""
        super().__init__(PixelMeter(*args, **options))

    def update(self, score_maps: Array, masks: Array) -> None:
        """Add images, as the meter does."""
        self._add(score_maps, masks)

    def compute(self) -> dict[str, Tensor]:
        """``pxap``."""
        return {"pxap": torch.tensor(pixel_rates(self.foreground.cpu().numpy(), self.background.cpu().numpy())["pxap"])}
