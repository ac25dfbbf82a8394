import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from wsolkit.datasets import find, open_dataset
from wsolkit.errors import DataError, RecipeError

OPTIONS = {"classes": 2}
WNIDS = ("n01", "n02", "n03")


@pytest.fixture
def root(tmp_path):
    """Tiny ImageNet's layout with 3 classes of 20 training images, 5 test images each."""
    root = tmp_path / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tcat\nn03\tdog\n")

    def picture(path):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path, "JPEG", quality=95)

    annotations = []
    for number, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid
        (folder / "images").mkdir(parents=True)
        lines = []
        for image in range(20):
            picture(folder / "images" / f"{wnid}_{image}.JPEG")
            lines.append(f"{wnid}_{image}.JPEG\t{image}\t{number}\t40\t{44 + number}")
        (folder / f"{wnid}_boxes.txt").write_text("\n".join(lines) + "\n")
        for image in range(5):
            name = f"val_{5 * number + image}.JPEG"
            picture(root / "val" / "images" / name)
            annotations.append(f"{name}\t{wnid}\t1\t2\t30\t{40 + image}")
    (root / "val" / "val_annotations.txt").write_text("\n".join(annotations) + "\n")
    return root


def zipped(root, prefix="tiny/"):
    path = root.parent / "tiny.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(root)))
    return path


def tarred(root, prefix):
    with tarfile.open(root.parent / "tiny.tgz", "w:gz") as archive:
        archive.add(root, prefix or ".")
    return root.parent / "tiny.tgz"


def test_splits_by_the_fixed_rule(root):
    train, held_out, test = (
        open_dataset("tiny_imagenet", split, 64, OPTIONS, root) for split in ("train-weaksup", "train-fullsup", "test")
    )
    assert [train[i].image_id for i in range(len(train)) if train.labels[i] == 0] == [
        f"n01_{number}" for number in range(20) if number % 10 != 9
    ]
    assert [held_out[i].image_id for i in range(len(held_out))] == ["n01_9", "n01_19", "n02_9", "n02_19"]
    assert [test[i].image_id for i in range(len(test))] == [f"val_{i}" for i in range(10)]
    assert train.classes == ("goldfish", "cat")
    assert test.labels.tolist() == [0] * 5 + [1] * 5


def test_boxes_and_pixels(root):
    sample = open_dataset("tiny_imagenet", "test", 64, OPTIONS, root)[2]
    assert sample.boxes.tolist() == [[1, 2, 30, 42]]
    with Image.open(root / "val" / "images" / "val_2.JPEG") as expected:
        assert (sample.image == np.asarray(expected)).all()
    assert sample.mask is None


def test_boxes_are_scaled_with_the_image(root):
    sample = open_dataset("tiny_imagenet", "test", 128, OPTIONS, root)[2]
    assert sample.image.shape == (128, 128, 3)
    assert sample.boxes.tolist() == [[2, 4, 60, 84]]


@pytest.mark.parametrize("prefix", ["", "tiny-imagenet-200/"])
def test_folder_zip_and_tar_give_the_same(root, prefix):
    plain = open_dataset("tiny_imagenet", "train-weaksup", 64, OPTIONS, root)
    for where in (zipped(root, prefix), tarred(root, prefix), root.parent):
        other = pickle.loads(pickle.dumps(open_dataset("tiny_imagenet", "train-weaksup", 64, OPTIONS, where)))
        assert len(plain) == len(other) == 36
        for index in (0, 35):
            assert (plain[index].image == other[index].image).all()
            assert plain[index].boxes.tolist() == other[index].boxes.tolist()
        assert [part.state for part in find("tiny_imagenet").parts(where)] == ["ok"] * 3


def test_limits_and_another_range_of_classes(root):
    options = {"first_class": 1, "classes": 2, "train_per_class": 3}
    data = open_dataset("tiny_imagenet", "train-weaksup", 64, options, root)
    assert data.classes == ("cat", "dog")
    assert [data[i].image_id for i in range(6)] == ["n02_0", "n02_1", "n02_2", "n03_0", "n03_1", "n03_2"]


def test_missing_data_is_explained(root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.zip").write_bytes(zipped(root).read_bytes()[:5000])
    for where, options, message in (
        (None, OPTIONS, "needs data_root"),
        (tmp_path / "nowhere", OPTIONS, "nowhere does not exist"),
        (tmp_path / "empty", OPTIONS, "Expected wnids.txt once.*found 0.*Give the folder or archive that holds it"),
        (tmp_path / "cut.zip", OPTIONS, "neither a folder nor a complete zip"),
        (root, {"first_class": 2, "classes": 2}, "has 3 classes; the options ask for classes 2 to 3"),
    ):
        with pytest.raises(DataError, match=message):
            open_dataset("tiny_imagenet", "test", 64, options, where)
    (root / "train" / "n02" / "n02_boxes.txt").unlink()
    with pytest.raises(DataError, match="Cannot read train/n02/n02_boxes.txt in .*: it is missing"):
        open_dataset("tiny_imagenet", "train-weaksup", 64, OPTIONS, root)
    with pytest.raises(RecipeError, match="classes = 0"):
        open_dataset("tiny_imagenet", "test", 64, {"classes": 0}, root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.txt", b"n01", "words.txt in .* line 1: it has 1 columns, expected 2"),
        ("val/val_annotations.txt", b"", "val_annotations.txt in .* is empty"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\t1\t2", "line 1: it has 4 columns, expected 6"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\t1\t2\tthirty\t4", "line 1: expected integers.*thirty"),
        ("val/val_annotations.txt", b"../val_0.JPEG\tn01\t1\t2\t3\t4", "line 1: .* is not a path below"),
        ("val/val_annotations.txt", b"a.JPEG\tn01\t1\t2\t3\t4\na.JPEG\tn02\t1\t2\t3\t4", "name an image of test twice"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn09\t1\t2\t3\t4", "has no test image of the classes n01, n02"),
        ("wnids.txt", b"\xff\xfe\x00", "wnids.txt in .* as text"),
    ],
)
def test_damaged_lists_are_named(root, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_dataset("tiny_imagenet", "test", 64, OPTIONS, root)


def test_lists_from_windows_are_read(root):
    before = open_dataset("tiny_imagenet", "train-weaksup", 64, OPTIONS, root)
    for path in root.rglob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n") + b"\r\n")
    after = open_dataset("tiny_imagenet", "train-weaksup", 64, OPTIONS, root)
    assert (after.classes, after.fingerprint) == (before.classes, before.fingerprint)


def test_an_image_that_cannot_be_decoded_is_named(root):
    broken = root / "val" / "images" / "val_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    data = open_dataset("tiny_imagenet", "test", 64, OPTIONS, root)
    assert data[0].image.shape == (64, 64, 3)
    with pytest.raises(DataError, match=r"Cannot decode val/images/val_1.JPEG"):
        data[1]


@pytest.mark.data
def test_the_real_photographs(tiny_imagenet_zip):
    sizes = {"train-weaksup": 40 * 450, "train-fullsup": 40 * 50, "test": 40 * 50}
    for split, count in sizes.items():
        data = open_dataset("tiny_imagenet", split, 64, {"classes": 40}, tiny_imagenet_zip)
        assert len(data) == count
        sample = data[count // 2]
        assert sample.image.std() > 5
        x0, y0, x1, y1 = sample.boxes[0]
        assert 0 <= x0 < x1 < 64
        assert 0 <= y0 < y1 < 64
