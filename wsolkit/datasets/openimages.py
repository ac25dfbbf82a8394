"""OpenImages30k: 100 classes, with masks for train-fullsup and test and no boxes.

Below the data root: ``metadata/OpenImages/<train|val|test>/`` of the WSOL benchmark, images in ``OpenImages/<id>``, and
masks in ``maskdata/OpenImages/`` if that folder exists, else beside the images. A class is named by its identifier in
OpenImages.
"""

from wsolkit.datasets._base import NoOptions as Options
from wsolkit.datasets._benchmark import Benchmark
from wsolkit.datasets._metadata import BENCHMARK

__all__ = ["Options", "extent", "open_split", "parts"]

_README = f"of OpenImages30k in the README of {BENCHMARK}, unpacked into OpenImages/"


class OpenImages(Benchmark):
    """OpenImages30k; ``masks`` counts one file per instance, and one per image for what to ignore."""

    name, folder, classes = "openimages", "OpenImages", 100
    images = {"train-weaksup": 29_819, "train-fullsup": 2_500, "test": 5_000}
    masks = {"train-fullsup": 6_354, "test": 12_632}
    where = dict.fromkeys(images, f"'Download images' {_README}")
    masks_from = f"'Download segmentation masks' {_README}"


open_split, parts, extent = OpenImages().open_split, OpenImages().parts, OpenImages().extent
