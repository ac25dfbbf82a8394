"""OpenImages30k: 100 classes, with masks for train-fullsup and test and no boxes.

Below the data root: ``metadata/OpenImages/<train|val|test>/`` of the WSOL benchmark, images in ``OpenImages/<id>``, and
masks in ``maskdata/OpenImages/`` if that folder exists, else beside the images. A class is named by its identifier in
OpenImages.
"""

from wsolkit.datasets._base import NoOptions as Options
from wsolkit.datasets._benchmark import Benchmark

__all__ = ["Options", "extent", "open_split", "parts"]


class OpenImages(Benchmark):
    """OpenImages30k; nothing is particular to it but its masks."""

    name = "openimages"


open_split, parts, extent = OpenImages().open_split, OpenImages().parts, OpenImages().extent
