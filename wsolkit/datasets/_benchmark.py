"""One reader for the data sets of the WSOL benchmark: each data set's file says only what is particular to it."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from wsolkit.datasets._base import SPLITS, Extent, NoOptions
from wsolkit.datasets._files import ImageFolders
from wsolkit.datasets._metadata import BENCHMARK, Metadata, class_names, read_metadata
from wsolkit.datasets._pictures import PictureDataset
from wsolkit.datasets._sources import Part, published
from wsolkit.errors import DataError

#: The benchmark's folder of each split.
FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}


class Benchmark:
    """A data set of the benchmark, in one folder with all other real data.

    Attributes:
        name: its name here. ``sources.toml`` says under it how large it is, where to get it, and, as ``folder``,
            its name in the benchmark: of its folder in ``metadata/`` and of its images' folder.
    """

    name: str

    @property
    def known(self) -> Mapping[str, Any]:
        """What ``sources.toml`` says."""
        return published(self.name)

    def open_split(self, split: str, size: int, options: Any, data_root: Path | None) -> PictureDataset:
        """One split; ``data_root`` is the folder of all real data.

        Raises:
            DataError: if there is no ``data_root``, or its metadata is missing or damaged.
        """
        if data_root is None or not data_root.is_dir():
            received = "received none" if data_root is None else f"{data_root} is not a folder"
            raise DataError(
                f"{self.name} needs data_root, the folder that holds metadata/ and the images; {received}. "
                f"`wsolkit data check {self.name} --data-root FOLDER` says what belongs there."
            )
        metadata = self.read(split, data_root)
        classes, picture = self.class_names(split, metadata, data_root), self.images_of(split, data_root).picture
        return PictureDataset(self.name, split, size, metadata, classes, picture, self.masks_of(data_root).roots[0])

    def parts(self, data_root: Path, options: NoOptions) -> tuple[Part, ...]:
        """What the data set needs, and how much of it is below ``data_root``."""
        return tuple(part for split in SPLITS for part in self._parts_of(split, data_root))

    def extent(self, options: Any) -> Extent:
        """How large the published data set is."""
        return Extent(self.known["images"], self.known["classes"], "masks" in self.known)

    def metadata_folder(self, split: str, root: Path) -> Path:
        """Where the annotations of a split are."""
        return root / "metadata" / self.known["folder"] / FOLDERS[split]

    def read(self, split: str, root: Path) -> Metadata:
        """The annotations of a split; training images have labels only."""
        return read_metadata(self.metadata_folder(split, root), localization=split != "train-weaksup")

    def images_of(self, split: str, root: Path) -> ImageFolders:
        """Where the images of a split are."""
        return ImageFolders((root / self.known["folder"],))

    def masks_of(self, root: Path) -> ImageFolders:
        """Where masks are: in ``maskdata/`` if there is such a folder, else beside the images."""
        apart = root / "maskdata" / self.known["folder"]
        return ImageFolders((apart if apart.is_dir() else root / self.known["folder"],))

    def shown_folder(self, split: str, root: Path) -> Path:
        """The folder that `parts` names for the images of a split."""
        return root / self.known["folder"]

    def class_names(self, split: str, metadata: Metadata, root: Path) -> tuple[str, ...]:
        """Names of the classes: the folder of their images."""
        return class_names(metadata, lambda image_id: PurePosixPath(image_id).parent.name)

    def _parts_of(self, split: str, root: Path) -> Iterator[Part]:
        folder, ids, masks, problem = self.metadata_folder(split, root), None, None, ""
        images = ImageFolders(())
        try:
            if folder.is_dir():
                metadata, images = self.read(split, root), self.images_of(split, root)
                ids, listed = metadata.image_ids, (metadata.masks or {}).values()
                masks = {path for each in listed for path in (*each.instances, each.ignore) if path}
        except DataError as error:
            problem = str(error)
        source = f"git clone {BENCHMARK}, and copy its folder metadata/"
        yield Part(f"metadata of {split}", folder, self.known["images"][split], len(ids or ()), source, problem)
        kinds: list[tuple] = [("images", self.shown_folder(split, root), ids, images, self.known["where"][split])]
        if split in self.known.get("masks", {}):
            files = self.masks_of(root)
            kinds.append(("masks", files.roots[0], masks, files, self.known["masks_from"]))
        for what, path, named, files, where in kinds:
            expected, found = _counted(named, files, self.known[what][split], path)
            yield Part(f"{what} of {split}", path, expected, found, where.format(root=root))


def _counted(names: Collection[str] | None, files: ImageFolders, complete: int, path: Path) -> tuple[int, int | None]:
    """How many files are expected and found; without a list of names, a folder that exists may hold anything."""
    if names is None:
        return complete, None if path.exists() else 0
    return len(names), files.count(names)
