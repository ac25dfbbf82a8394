import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from wsolkit.datasets import find, find_published, open_dataset
from wsolkit.datasets.fastai_subset import _known, classes_of
from wsolkit.errors import DataError, RecipeError

WNIDS = list(classes_of("imagenette"))
OPTIONS = {"subset": "imagenette"}


@pytest.fixture
def root(tmp_path):
    """Imagenette's layout: 3 training photographs a class, and all 50 of validation, spread over both folders."""
    root = tmp_path / "imagenette2-160"
    by_class = {wnid: [] for wnid in WNIDS}
    with open(_csv(), encoding="utf-8") as opened:
        for line in opened.readlines()[1:]:
            _, wnid, _, image, *_ = line.split(",")
            if wnid in by_class and image not in by_class[wnid]:
                by_class[wnid].append(image)
    rng = np.random.default_rng(0)
    for wnid, validation in by_class.items():
        for number, name in enumerate([f"{wnid}_10", f"{wnid}_9", f"{wnid}_200", *validation]):
            folder = root / ("val" if number % 3 == 0 else "train") / wnid
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8)).save(folder / f"{name}.JPEG")
    return root


def _csv():
    return find("fastai_subset").module.__file__.replace(".py", ".csv")


def test_names_decide_the_split_whatever_the_folder(root):
    train, held_out, test = (
        open_dataset("fastai_subset", split, 32, OPTIONS, root) for split in ("train-weaksup", "train-fullsup", "test")
    )
    assert (len(train), len(held_out), len(test)) == (30, 200, 300)
    assert [train[i].image_id for i in range(3)] == [f"{WNIDS[0]}_{number}" for number in (9, 10, 200)]
    first = [[int(data[i].image_id[-8:]) for i in np.flatnonzero(data.labels == 4)] for data in (held_out, test)]
    assert first == [sorted(first[0]), sorted(first[1])]
    assert max(first[0]) < min(first[1])
    assert train.classes[:2] == ("tench", "English springer")
    assert len(train[0].boxes) == 0


def test_boxes_are_scaled_from_the_original_size(root):
    test = open_dataset("fastai_subset", "test", 100, OPTIONS, root)
    sample = test[0]
    _, boxes, (width, height) = _known()[sample.image_id]
    expected = (boxes * 100 / [width, height, width, height]).astype(int)
    assert sample.boxes.tolist() == expected.tolist()


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_largest_share_leaves_out_the_same_images_at_every_size(root, share):
    every = open_dataset("fastai_subset", "test", 50, OPTIONS, root)
    small = np.flatnonzero(every.box_shares() <= share)
    assert 0 < len(small) < len(every)
    for size in (50, 200):
        chosen = open_dataset("fastai_subset", "test", size, {**OPTIONS, "max_box_share": share}, root)
        assert [chosen[i].image_id for i in range(len(chosen))] == [every[i].image_id for i in small]
    assert len(open_dataset("fastai_subset", "train-weaksup", 50, {**OPTIONS, "max_box_share": share}, root)) == 30


def test_folder_archive_and_the_folder_that_has_either_give_the_same(root):
    plain = open_dataset("fastai_subset", "test", 32, OPTIONS, root)
    places = [root.parent, root.parent / "other.zip", root.parent / "elsewhere"]
    with zipfile.ZipFile(places[1], "w") as archive:
        for file in sorted(root.rglob("*.JPEG")):
            archive.write(file, f"imagenette2-160/{file.relative_to(root)}")
    places[2].mkdir()
    with tarfile.open(places[2] / "imagenette2-160.tgz", "w:gz") as archive:
        archive.add(root, "imagenette2-160")
    for place in places:
        other = pickle.loads(pickle.dumps(open_dataset("fastai_subset", "test", 32, OPTIONS, place)))
        assert other.fingerprint == plain.fingerprint
        assert (other[7].image == plain[7].image).all()
        assert [part.state for part in find_published("imagenette").parts(place)] == ["ok"] * 3


def test_what_is_missing_or_ambiguous_is_named(root):
    with pytest.raises(DataError, match="imagewoof needs data_root.*wsolkit data get imagewoof"):
        open_dataset("fastai_subset", "test", 32)
    with pytest.raises(DataError, match="Expected train/n02086240"):
        open_dataset("fastai_subset", "test", 32, data_root=root.parent)
    for file in (root / "val" / WNIDS[2]).iterdir():
        file.unlink()
    short = {part.what: part.state for part in find_published("imagenette").parts(root)}
    assert short == {
        "photographs of train-weaksup": "ok",
        "photographs of train-fullsup": "incomplete",
        "photographs of test": "incomplete",
    }
    with pytest.raises(DataError, match="of 200 train-fullsup photographs"):
        open_dataset("fastai_subset", "train-fullsup", 32, OPTIONS, root)
    root.rename(root.with_name("imagenette2-320"))
    (root / "train" / WNIDS[0]).mkdir(parents=True)
    with pytest.raises(DataError, match="found imagenette2-160, imagenette2-320"):
        open_dataset("fastai_subset", "test", 32, OPTIONS, root.parent)
    with pytest.raises(RecipeError, match="subset"):
        find("fastai_subset", {"subset": "imagewang"})


def test_both_subsets_are_published_under_their_names():
    for name in ("imagewoof", "imagenette"):
        source = find_published(name)
        assert source.options.subset == name
        (archive,) = source.archives
        assert archive.unpacks_to == f"{name}2-320"


def test_boxes_are_those_of_the_benchmark():
    path = SHARED / "data" / "wsol-metadata.zip"
    if not path.exists():
        pytest.skip("needs the benchmark's metadata beside the clone")
    labels = {*classes_of("imagewoof").values(), *classes_of("imagenette").values()}
    assert len(labels) == 20
    with zipfile.ZipFile(path) as archive:
        read = {
            name: archive.read(f"metadata/ILSVRC/test/{name}.txt").decode().splitlines()
            for name in ("class_labels", "image_sizes", "localization")
        }
    chosen = {line.split(",")[0] for line in read["class_labels"] if int(line.split(",")[1]) in labels}
    sizes, boxes = {}, {}
    for line in read["image_sizes"]:
        image, *size = line.split(",")
        sizes[image] = tuple(map(int, size))
    for line in read["localization"]:
        image, *box = line.split(",")
        boxes.setdefault(image, []).append(list(map(int, box)))
    found = {image: (each.boxes.tolist(), *each.size) for image, each in _known().items()}
    expected = {image.rsplit("/")[-1].removesuffix(".JPEG"): (sorted(boxes[image]), *sizes[image]) for image in chosen}
    assert {image: (sorted(each), *size) for image, (each, *size) in found.items()} == expected
    assert len(found) == 1_000
