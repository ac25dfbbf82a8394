import pickle
from pathlib import Path

import numpy as np
import pytest

from wsolkit import datasets
from wsolkit.datasets import SPLITS, CachedDataset, open_dataset
from wsolkit.errors import DataError, RecipeError, WsolkitError

DRAWN = ("synthetic_birds", "synthetic_objects")
FEW = {"train_weaksup": 20, "train_fullsup": 20, "test": 20}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_sample_is_complete_and_consistent(name, size):
    data = open_dataset(name, "test", size, FEW)
    for index in range(10):
        sample = data[index]
        assert sample.image.shape == (size, size, 3)
        assert sample.image.dtype == np.uint8
        assert sample.label == data.labels[index] == index % len(data.classes)
        rows, columns = np.nonzero(sample.mask)
        right, bottom = min(columns.max() + 1, size - 1), min(rows.max() + 1, size - 1)
        assert sample.boxes.tolist() == [[columns.min(), rows.min(), right, bottom]]
        assert set(np.unique(sample.mask)) == {0, 1}
        assert 0.02 < sample.mask.mean() < 0.7


@pytest.mark.parametrize("name", DRAWN)
def test_an_image_does_not_depend_on_what_was_drawn_before(name):
    forward, alone = open_dataset(name, "test", 32, FEW), open_dataset(name, "test", 32, {**FEW, "test": 13})
    images = [forward[index].image for index in range(13)]
    assert (alone[12].image == images[12]).all()
    assert (forward[12].image == images[12]).all()
    assert (images[0] != images[10]).any()


@pytest.mark.parametrize("name", DRAWN)
def test_splits_and_worlds_differ(name):
    first = [open_dataset(name, split, 32, FEW)[0].image for split in SPLITS]
    other = open_dataset(name, "test", 32, {**FEW, "world_seed": 1})[0].image
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (first[a] != first[b]).any()
    assert (first[2] != other).any()


def test_the_same_scene_at_two_sizes_has_the_same_object():
    small, large = (open_dataset("synthetic_birds", "test", size, FEW)[4] for size in (64, 128))
    np.testing.assert_allclose(large.boxes, small.boxes * 2, atol=3)
    assert large.mask.mean() == pytest.approx(small.mask.mean(), rel=0.03)


def test_the_head_is_the_only_part_that_names_the_species():
    """To a perfect eye, the species nearest in colour is right by the head, and by no other part."""
    from wsolkit.datasets import synthetic_birds as birds

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(birds.HEADS)), 20)
    drawn = [birds.plumage(rng, label) for label in labels]
    for part in ("head", "body", "belly", "wing", "tail", "bill"):
        colours = np.array([bird[part] for bird in drawn])
        typical = np.array([colours[labels == label].mean(0) for label in range(len(birds.HEADS))])
        nearest = np.linalg.norm(colours[:, None] - typical[None], axis=-1).argmin(1)
        right = (nearest == labels).mean()
        assert right > 0.95 if part == "head" else right < 0.5, part


@pytest.mark.parametrize("folder", [None, "cache"])
def test_cache_gives_the_same_samples(tmp_path, folder):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    cached = CachedDataset(source, folder and tmp_path / folder)
    assert len(cached) == len(source)
    assert cached.classes == source.classes
    for index in (0, 7, 19):
        a, b = cached[index], source[index]
        assert (a.image == b.image).all()
        assert (a.mask == b.mask).all()
        assert a.boxes.tolist() == b.boxes.tolist()
        assert (a.label, a.image_id) == (b.label, b.image_id)


def test_cache_on_disk_is_drawn_once(tmp_path):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    CachedDataset(source, tmp_path)

    class Forbidden(type(source)):
        def __getitem__(self, index):
            raise AssertionError("drawn again")

    source.__class__ = Forbidden
    cached = CachedDataset(source, tmp_path)
    assert cached[3].image.shape == (32, 32, 3)
    assert isinstance(cached.images, np.memmap)  # so that memory does not grow with the number of images
    assert [path.is_dir() for path in sorted(tmp_path.iterdir())] == [True, False]


def test_a_damaged_cache_is_named(tmp_path):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    CachedDataset(source, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (folder / "boxes.npy").write_bytes(b"cut")
    with pytest.raises(DataError, match=f"cache in .*{folder.name} is damaged.*Delete that folder"):
        CachedDataset(source, tmp_path)


class Counted:
    """A data set that counts what is read of it, and breaks at some image."""

    def __init__(self, source, breaks_at=None):
        self.source, self.breaks_at, self.read = source, breaks_at, []

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.breaks_at:
            raise DataError(f"Cannot decode image-{index}.jpg.")
        return self.source[index]


def arrays(folder: Path) -> dict[str, bytes]:
    (cache,) = (path for path in folder.iterdir() if path.is_dir())
    return {path.name: path.read_bytes() for path in cache.iterdir()}


@pytest.fixture
def small_chunks(monkeypatch):
    from wsolkit.datasets import _cache

    monkeypatch.setattr(_cache, "CHUNK", 3)
    monkeypatch.setattr(_cache, "cores", lambda: 2)


def test_a_cache_goes_on_where_it_was_left(tmp_path, small_chunks):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    CachedDataset(source, tmp_path / "whole")
    broken = Counted(source, breaks_at=13)
    with pytest.raises(DataError, match=r"image-13\.jpg"):
        CachedDataset(broken, tmp_path / "parts")
    mended = Counted(source)
    cached = CachedDataset(mended, tmp_path / "parts")
    assert {12, 13, 14} <= set(mended.read)
    assert 0 < len(mended.read) < 20
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "whole")
    assert (cached[19].mask == source[19].mask).all()


def test_a_chunk_that_was_altered_before_the_end_is_read_again(tmp_path, small_chunks):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    CachedDataset(source, tmp_path / "whole")
    with pytest.raises(DataError):
        CachedDataset(Counted(source, breaks_at=19), tmp_path / "parts")
    (partial,) = (path for path in (tmp_path / "parts").iterdir() if path.is_dir())
    images = np.load(partial / "images.npy", mmap_mode="r+")
    images[1] = 0
    images.flush()
    mended = Counted(source)
    CachedDataset(mended, tmp_path / "parts")
    assert {0, 1, 2} <= set(mended.read)
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "whole")


def test_verify_finds_a_single_altered_byte(tmp_path, small_chunks):
    cached = CachedDataset(open_dataset("synthetic_objects", "test", 32, FEW), tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert datasets.verify(folder) == []
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[10, 5, 5, 1] ^= 1
    images.flush()
    (problem,) = datasets.verify(folder)
    assert "images 9 to 11 were altered" in problem
    (folder / "ids.npy").unlink()
    assert "cannot be read" in datasets.verify(folder)[0]
    assert len(cached) == 20


def test_a_cache_of_another_length_is_damaged(tmp_path):
    source = open_dataset("synthetic_objects", "test", 32, FEW)
    CachedDataset(source, tmp_path)
    source.labels = source.labels[:-1]
    with pytest.raises(DataError, match="20 images instead of 19"):
        CachedDataset(source, tmp_path)


def test_drawn_data_survives_pickling():
    data = open_dataset("synthetic_birds", "test", 32, FEW)
    assert (pickle.loads(pickle.dumps(data))[2].image == data[2].image).all()


def test_unknown_names_are_refused():
    with pytest.raises(RecipeError, match="Did you mean 'synthetic_birds'"):
        open_dataset("synthetic_bird", "test", 32)
    with pytest.raises(RecipeError, match="Known: test, train-fullsup, train-weaksup"):
        open_dataset("synthetic_birds", "val", 32)
    with pytest.raises(RecipeError, match="unknown name 'tests'"):
        open_dataset("synthetic_birds", "test", 32, {"tests": 4})
    with pytest.raises(RecipeError, match="test = 0"):
        open_dataset("synthetic_birds", "test", 32, {"test": 0})


def test_an_index_out_of_range_ends_a_loop():
    data = open_dataset("synthetic_birds", "test", 32, FEW)
    assert len(list(data)) == 20
    with pytest.raises(IndexError):
        data[-1]


def test_an_unwritable_cache_is_an_error_of_the_kit(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WsolkitError, match="Cannot write in"):
        CachedDataset(open_dataset("synthetic_birds", "test", 32, FEW), tmp_path / "file")


def test_names_lists_files():
    assert set(DRAWN) < set(datasets.names())
