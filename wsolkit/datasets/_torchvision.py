"""The kit's data sets as torchvision data sets, for code that is written for those."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import VisionDataset

from wsolkit.datasets import WsolDataset

Target = Literal["class", "boxes"]


class WsolVisionDataset(VisionDataset):
    """Samples as ``(picture, target)``, with transforms.

    Attributes:
        classes: names.
        class_to_idx: index of each name.
        targets: class index of each image.
    """

    def __init__(
        self,
        source: WsolDataset,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        transforms: Callable | None = None,
        target: Target = "class",
    ):
        """View a split from `wsolkit.datasets.open_dataset`.

        Args:
            source: the split.
            transform: of the picture, a PIL image.
            target_transform: of the target.
            transforms: of both, e.g. from ``torchvision.transforms.v2``; instead of the other two.
            target: ``"class"`` gives the class index; ``"boxes"`` a dict with ``labels`` (k,), ``boxes`` (k, 4), XYXY
                in pixels, and ``mask`` (1, H, W) if the data set has masks, as in torchvision's detection data sets.
        """
        super().__init__("", transforms, transform, target_transform)
        self._source, self._target = source, target
        self.classes = list(source.classes)
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.targets = source.labels.tolist()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self._source[index]
        picture, label = Image.fromarray(sample.image), int(sample.label)
        target: int | dict[str, Tensor] = label
        if self._target == "boxes":
            size = sample.image.shape[:2]
            boxes = tv_tensors.BoundingBoxes(torch.as_tensor(sample.boxes), format="XYXY", canvas_size=size)
            target = {"labels": torch.full((len(boxes),), label), "boxes": boxes}
            if sample.mask is not None:
                target["mask"] = tv_tensors.Mask(torch.as_tensor(sample.mask)[None])
        return (picture, target) if self.transforms is None else self.transforms(picture, target)
