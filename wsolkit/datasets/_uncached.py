"""Images as an array, and a data set that decodes them every time, where there is no room to keep them."""

import numpy as np

from wsolkit.datasets._base import Sample, WsolDataset


class OpenedDataset(WsolDataset):
    """A split whose images can be had many at a time.

    Attributes:
        images: (N, S, S, 3) uint8, indexable by an array of image numbers.
    """

    images: "np.ndarray | Decoded"


class UncachedDataset(OpenedDataset):
    """The same samples as the source's, each image decoded when it is asked for."""

    def __init__(self, source: WsolDataset):
        """Read nothing yet."""
        self.name, self.split, self.size = source.name, source.split, source.size
        self.classes, self.labels, self.fingerprint = source.classes, source.labels, source.fingerprint
        self._source, self.images = source, Decoded(source)

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]


class Decoded:
    """The images of a data set, indexed like an array; nothing is kept.

    Attributes:
        shape: as the array would have.
    """

    def __init__(self, source: WsolDataset):
        """StandIn for the images of a data set."""
        self._source, self.shape = source, (len(source), source.size, source.size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | tuple | np.ndarray) -> np.ndarray:
        if isinstance(index, tuple):
            return self[index[0]][index[1:]]
        if isinstance(index, slice):
            return self[np.arange(len(self))[index]]
        if np.ndim(index) == 0:
            return self._source[range(len(self))[int(index)]].image
        return np.stack([self[number] for number in np.asarray(index)])
