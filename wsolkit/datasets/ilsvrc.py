"""ImageNet-1K (ILSVRC 2012), with ImageNetV2 as its train-fullsup split: 1,000 classes, one or more boxes per image.

Below the data root: ``metadata/ILSVRC/<train|val|test>/`` of the WSOL benchmark, and images in ``ILSVRC/train/<wnid>/``
(train-weaksup), ``ILSVRC/val2/<class>/`` (ImageNetV2, threshold 0.7: train-fullsup) and ``ILSVRC/val/`` (test).

Today's archive of ImageNetV2 gives its images other names than the benchmark does. If the benchmark's table of both
names, ``metadata/ILSVRC/val/mapping.txt``, is there, images are found under either.
"""

from pathlib import Path

from wsolkit.datasets._base import NoOptions as Options
from wsolkit.datasets._benchmark import Benchmark
from wsolkit.datasets._files import ImageFolders
from wsolkit.datasets._metadata import Metadata
from wsolkit.datasets._tables import read_table

__all__ = ["Options", "extent", "open_split", "parts"]


class Ilsvrc(Benchmark):
    """ImageNet-1K; a class is named by its wnid, or by its number if the training metadata is missing."""

    name = "ilsvrc"

    def images_of(self, split: str, root: Path) -> ImageFolders:
        """Where the images of a split are, those of ImageNetV2 under both names."""
        path, folders = self.metadata_folder(split, root) / "mapping.txt", (root / "ILSVRC",)
        if split != "train-fullsup" or not path.is_file():
            return ImageFolders(folders)
        names = read_table(path, (2,))
        names.require_paths(1)
        return ImageFolders(folders, {f"val2/{then}": f"val2/{now}" for then, now in zip(*names.columns, strict=True)})

    def shown_folder(self, split: str, root: Path) -> Path:
        """The images of each split have a folder of their own."""
        return root / "ILSVRC" / {"train-weaksup": "train", "train-fullsup": "val2", "test": "val"}[split]

    def class_names(self, split: str, metadata: Metadata, root: Path) -> tuple[str, ...]:
        """Wnids, from the ids of the training images; numbers if their metadata is missing."""
        training = "train-weaksup"
        if split != training and not self.metadata_folder(training, root).is_dir():
            return tuple(f"class {label}" for label in range(metadata.labels.max() + 1))
        return super().class_names(training, metadata if split == training else self.read(training, root), root)


open_split, parts, extent = Ilsvrc().open_split, Ilsvrc().parts, Ilsvrc().extent
