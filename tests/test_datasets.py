import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wsolkit import datasets
from wsolkit.datasets import SPLITS, CachedDataset, UncachedDataset, open_dataset
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
def test_an_image_depends_on_world_split_and_number_alone(name):
    first, alone = open_dataset(name, "test", 32, FEW), open_dataset(name, "test", 32, {**FEW, "test": 13})
    for index in range(12):
        assert (first[index].image != first[index + 1].image).any()
    assert (alone[12].image == first[12].image).all()
    assert (pickle.loads(pickle.dumps(first))[12].image == first[12].image).all()
    others = [open_dataset(name, split, 32, FEW)[12] for split in SPLITS[:2]]
    for other in (*others, open_dataset(name, "test", 32, {**FEW, "world_seed": 1})[12]):
        assert (other.image != first[12].image).any()


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


# Caches


@pytest.fixture
def source():
    return open_dataset("synthetic_objects", "test", 32, FEW)


def test_images_in_memory_in_a_folder_or_decoded_each_time_are_the_same(tmp_path, source):
    on_disk = CachedDataset(source, tmp_path)
    assert isinstance(on_disk.images, np.memmap)  # so that memory does not grow with the number of images
    for opened in (CachedDataset(source), on_disk, UncachedDataset(source)):
        assert (len(opened), opened.classes, opened.fingerprint) == (20, source.classes, source.fingerprint)
        for index in (0, 7, 19):
            a, b = opened[index], source[index]
            assert (a.image == b.image).all()
            assert (opened.images[index] == b.image).all()
            assert (a.mask == b.mask).all()
            assert (a.boxes.tolist(), a.label, a.image_id) == (b.boxes.tolist(), b.label, b.image_id)
        for index in (20, -1):
            with pytest.raises(IndexError):
                opened[index]


def test_a_cache_in_a_folder_is_filled_once_and_what_is_damaged_is_named(tmp_path, source):
    CachedDataset(source, tmp_path)
    again = Counted(source)
    CachedDataset(again, tmp_path)
    assert again.read == []
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    rng = np.random.default_rng(0)
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        for damaged in (b"", b"cut", content[:40], *(bytes(rng.integers(0, 256, 60, np.uint8)) for _ in range(5))):
            file.write_bytes(damaged + content[len(damaged) : len(content) // 2])
            with pytest.raises(DataError, match=f"cache in .*{folder.name} is damaged.*Delete that folder"):
                CachedDataset(source, tmp_path)
            assert "cannot be read" in datasets.verify(folder)[0]
        file.write_bytes(content)
    assert datasets.verify(folder) == []
    source.labels = source.labels[:-1]
    with pytest.raises(DataError, match="20 images instead of 19"):
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


def test_a_cache_goes_on_where_it_was_left_and_reads_what_was_altered_again(tmp_path, small_chunks, source):
    CachedDataset(source, tmp_path / "whole")
    with pytest.raises(DataError, match=r"image-19\.jpg"):
        CachedDataset(Counted(source, breaks_at=19), tmp_path / "parts")
    (partial,) = (path for path in (tmp_path / "parts").iterdir() if path.is_dir())
    for name, image in (("images", 1), ("masks", 7)):
        array = np.load(partial / f"{name}.npy", mmap_mode="r+")
        array[image] = 9
        array.flush()
    (partial / "chunk-00000012.npz").write_bytes(b"PK")
    mended = Counted(source)
    CachedDataset(mended, tmp_path / "parts")
    assert {*range(3), *range(6, 9), *range(12, 15), 18, 19} <= set(mended.read)
    assert not {3, 4, 5, 9, 10, 11, 15, 16, 17} & set(mended.read)
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "whole")


def test_a_cache_that_an_older_version_has_begun_is_filled_anew(tmp_path, small_chunks, source):
    CachedDataset(source, tmp_path / "whole")
    (whole,) = (path for path in (tmp_path / "whole").iterdir() if path.is_dir())
    begun = tmp_path / "parts" / f".{whole.name}"
    begun.mkdir(parents=True)
    np.save(begun / "images.npy", np.zeros((20, 32, 32, 3), np.uint8))
    np.savez(begun / "part-00000000.npz", boxes=np.zeros((0, 4)), sum=np.zeros(1))
    CachedDataset(source, tmp_path / "parts")
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "whole")


def test_a_disk_that_is_too_small_is_found_out_before_anything_is_read(tmp_path, monkeypatch, source):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=60_000))
    counted = Counted(source)
    with pytest.raises(DataError, match="decoded images .* take 0.0 GB.*Set WSOLKIT_CACHE"):
        CachedDataset(counted, tmp_path)
    assert counted.read == []


def test_verify_finds_a_single_altered_byte(tmp_path, small_chunks, source):
    CachedDataset(source, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[10, 5, 5, 1] ^= 1
    images.flush()
    (problem,) = datasets.verify(folder)
    assert "images 9 to 11 were altered" in problem


def test_unknown_names_are_refused():
    with pytest.raises(RecipeError, match="Did you mean 'synthetic_birds'"):
        open_dataset("synthetic_bird", "test", 32)
    with pytest.raises(RecipeError, match="Known: test, train-fullsup, train-weaksup"):
        open_dataset("synthetic_birds", "val", 32)
    with pytest.raises(RecipeError, match="unknown name 'tests'"):
        open_dataset("synthetic_birds", "test", 32, {"tests": 4})
    with pytest.raises(RecipeError, match="test = 0"):
        open_dataset("synthetic_birds", "test", 32, {"test": 0})


def test_an_unwritable_cache_is_an_error_of_the_kit(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(WsolkitError, match="Cannot write to"):
        CachedDataset(source, tmp_path / "file")
