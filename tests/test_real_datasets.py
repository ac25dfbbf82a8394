"""The three real data sets on small data of the same layout, and what `wsolkit data check` says of them."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tests.test_benchmark_data import SPLITS, mask_file, picture, write
from wsolkit import datasets
from wsolkit.datasets import CachedDataset, open_dataset
from wsolkit.errors import DataError, RecipeError


@pytest.fixture
def root(tmp_path):
    """All three data sets, 2 classes each, with their images in the benchmark's layout."""
    root = tmp_path / "data"
    birds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    for split in SPLITS.values():
        ids = [f"{bird}/{split}_{number}.jpg" for bird in birds for number in (1, 2)]
        add_split(root, "CUB", split, ids, [0, 0, 1, 1])
        wnids = ("n01440764", "n01443537")
        ids = {
            "train": [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in wnids for number in (1, 2)],
            "val": [f"val2/{label}/{number}.jpeg" for label in (0, 1) for number in (1, 2)],
            "test": [f"val/ILSVRC2012_val_{number}.JPEG" for number in range(4)],
        }[split]
        add_split(root, "ILSVRC", split, ids, [0, 0, 1, 1])
        ids = [f"{split}/{mid}/{number}.jpg" for mid in ("01226z", "0138tl") for number in (1, 2)]
        add_split(root, "OpenImages", split, ids, [0, 0, 1, 1])
        places = "" if split == "train" else "\n".join(f"{i},{i[:-4]}_x.png,{i[:-4]}_ignore.png" for i in ids)
        write(root / "metadata" / "OpenImages" / split, {"image_sizes": "", "localization": places})
        for image in ids if split != "train" else ():
            mask_file(root / "OpenImages" / f"{image[:-4]}_x.png", [[1, 1], [0, 0]])
            mask_file(root / "OpenImages" / f"{image[:-4]}_ignore.png", [[1, 0], [1, 0]])
    return root


def add_split(root, benchmark, split, ids, labels):
    for number, image in enumerate(ids):
        picture(root / benchmark / image, seed=number)
    write(
        root / "metadata" / benchmark / split,
        {
            "image_ids": "\n".join(ids),
            "class_labels": "\n".join(f"{i},{label}" for i, label in zip(ids, labels, strict=True)),
            "image_sizes": "\n".join(f"{i},20,40" for i in ids),
            "localization": "\n".join(f"{i},{n},2,10,30\n{i},0,0,19,39" for n, i in enumerate(ids)),
        },
    )


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("cub", ("Black footed Albatross", "Laysan Albatross")),
        ("ilsvrc", ("n01440764", "n01443537")),
        ("openimages", ("01226z", "0138tl")),
    ],
)
def test_every_split_opens_with_the_same_classes(root, name, classes):
    for split in SPLITS:
        data = open_dataset(name, split, 32, {}, root)
        assert len(data) == len(list(data)) == 4
        assert data.classes == classes
        assert data.labels.tolist() == [sample.label for sample in data] == [0, 0, 1, 1]
        assert all(sample.image.shape == (32, 32, 3) for sample in data)
        assert pickle.loads(pickle.dumps(data))[3].image_id == data[3].image_id
        cached = CachedDataset(data)[2]
        assert (cached.image == data[2].image).all()
        assert cached.boxes.tolist() == data[2].boxes.tolist()


def test_pixels_and_boxes_follow_the_image_to_the_asked_size(root):
    sample = open_dataset("cub", "test", 80, {}, root)[1]
    with Image.open(root / "CUB" / "001.Black_footed_Albatross" / "test_2.jpg") as picture:
        assert (sample.image == np.asarray(picture.resize((80, 80), Image.Resampling.BILINEAR))).all()
    assert sample.boxes.tolist() == [[4, 4, 40, 60], [0, 0, 76, 78]]
    assert sample.mask is None
    assert sample.image_id == "001.Black_footed_Albatross/test_2.jpg"


def test_boxes_are_scaled_by_the_stated_size_not_by_the_file(root):
    picture(root / "CUB" / "001.Black_footed_Albatross" / "test_2.jpg", 10, 20)
    assert open_dataset("cub", "test", 80, {}, root)[1].boxes.tolist() == [[4, 4, 40, 60], [0, 0, 76, 78]]


@pytest.mark.parametrize("name", ["cub", "ilsvrc", "openimages"])
def test_training_images_have_labels_only(root, name):
    sample = open_dataset(name, "train-weaksup", 32, {}, root)[0]
    assert sample.boxes.shape == (0, 4)
    assert sample.mask is None


@pytest.mark.parametrize("folder", ["OpenImages", "maskdata/OpenImages"])
def test_openimages_has_masks_and_no_boxes(root, folder):
    if folder != "OpenImages":
        (root / folder).parent.mkdir()
        for split in ("val", "test"):
            for path in list((root / "OpenImages" / split).rglob("*.png")):
                target = root / folder / path.relative_to(root / "OpenImages")
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    sample = open_dataset("openimages", "test", 4, {}, root)[0]
    assert sample.boxes.shape == (0, 4)
    assert sample.mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [255, 255, 0, 0], [255, 255, 0, 0]]
    assert (CachedDataset(open_dataset("openimages", "test", 4, {}, root))[0].mask == sample.mask).all()


def test_ilsvrc_without_training_images_numbers_its_classes(root):
    for path in (root / "metadata" / "ILSVRC" / "train").iterdir():
        path.unlink()
    (root / "metadata" / "ILSVRC" / "train").rmdir()
    assert open_dataset("ilsvrc", "test", 32, {}, root).classes == ("class 0", "class 1")


def test_imagenetv2_is_found_under_its_names_of_today(root):
    folder = root / "ILSVRC" / "val2" / "1"
    (folder / "2.jpeg").rename(folder / "83f4.jpeg")
    data = open_dataset("ilsvrc", "train-fullsup", 32, {}, root)
    with pytest.raises(DataError, match="Image val2/1/2.jpeg is not in .*ILSVRC"):
        data[3]
    mapping = root / "metadata" / "ILSVRC" / "val" / "mapping.txt"
    mapping.write_bytes(b"\xef\xbb\xbf1/1.jpeg, 1/0.jpeg\r\n1/2.jpeg, 1/83f4.jpeg \r\n\r\n")
    assert open_dataset("ilsvrc", "train-fullsup", 32, {}, root)[3].image_id == "val2/1/2.jpeg"
    mapping.write_text("1/1.jpeg, 1/0.jpeg\n1/2.jpeg, ../../83f4.jpeg\n")
    with pytest.raises(DataError, match="mapping.txt in .*: line 2: .* is not a path below"):
        open_dataset("ilsvrc", "train-fullsup", 32, {}, root)


def test_labels_leave_no_gap_and_name_a_class(root):
    folder = root / "metadata" / "ILSVRC" / "test"
    text = (folder / "class_labels.txt").read_text()
    (folder / "class_labels.txt").write_text(text.replace(",1", ",2"))
    with pytest.raises(DataError, match="ilsvrc test has label 2, but there are 2 classes"):
        open_dataset("ilsvrc", "test", 32, {}, root)
    folder = root / "metadata" / "CUB" / "test"
    (folder / "class_labels.txt").write_text((folder / "class_labels.txt").read_text().replace(",1", ",2"))
    with pytest.raises(DataError, match="Labels go up to 2, but no image has label 1"):
        open_dataset("cub", "test", 32, {}, root)


def test_missing_and_broken_images_are_named(root):
    data = open_dataset("cub", "test", 32, {}, root)
    path = root / "CUB" / data[0].image_id
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=f"Cannot decode .*{path.name}"):
        data[0]
    path.unlink()
    with pytest.raises(DataError, match=f"Image .*{path.name} is not in .*CUB or .*CUB_200_2011"):
        data[0]
    for index in (-1, 4):
        with pytest.raises(IndexError):
            data[index]


def test_a_missing_root_is_explained(tmp_path):
    for name in ("cub", "ilsvrc", "openimages"):
        with pytest.raises(DataError, match=f"{name} needs data_root.*received none"):
            open_dataset(name, "test", 32)
        with pytest.raises(DataError, match="nowhere is not a folder.*wsolkit data check"):
            open_dataset(name, "test", 32, {}, tmp_path / "nowhere")
        with pytest.raises(RecipeError, match="unknown name 'classes'"):
            open_dataset(name, "test", 32, {"classes": 3}, tmp_path)


# CUB's own archive


@pytest.fixture
def archive(root):
    """The same CUB as its own archive has it, with another split and boxes beyond the border."""
    folder = root / "CUB_200_2011"
    ids = [
        f"{bird}/own_{number}.jpg" for bird in ("001.Black_footed_Albatross", "002.Laysan_Albatross") for number in "12"
    ]
    for image in ids:
        picture(folder / "images" / image)
    write(
        folder,
        {
            "images": "\n".join(f"{n} {image}" for n, image in enumerate(ids, 1)),
            "image_class_labels": "\ufeff1 1\r\n2 1\r\n3 2 \r\n4 2\r\n\r\n",
            "train_test_split": "1 1\n2 0\n3 1\n4 0\n",
            "bounding_boxes": "1 0.0 0.0 5.0 5.0\n2 3.0 2.0 4.0 30.0\n3 0.0 0.0 5.0 5.0\n4 0.0 1.0 20.0 41.0\n",
        },
    )
    return folder


def test_the_archive_gives_splits_labels_and_boxes_as_the_benchmark_has_them(root, archive):
    options = {"annotations": "archive"}
    train = open_dataset("cub", "train-weaksup", 40, options, root)
    test = open_dataset("cub", "test", 40, options, root)
    assert [sample.image_id.split("/")[1] for sample in train] == ["own_1.jpg"] * 2
    assert [sample.image_id.split("/")[1] for sample in test] == ["own_2.jpg"] * 2
    assert train.labels.tolist() == test.labels.tolist() == [0, 1]
    assert test.classes == ("Black footed Albatross", "Laysan Albatross")
    assert test[0].boxes.tolist() == [[6, 2, 14, 32]]
    assert test[1].boxes.tolist() == [[0, 1, 38, 39]]  # cut at column 19 of 20 and row 39 of 40
    assert train[0].boxes.shape == (0, 4)


def test_the_archive_has_no_fullsup_split(root, archive):
    options = {"annotations": "archive"}
    assert len(open_dataset("cub", "train-fullsup", 40, options, root)) == 4
    (root / "metadata").rename(root / "elsewhere")
    with pytest.raises(DataError, match="CUB/val is missing.*CUBV2, which CUB's own archive does not have"):
        open_dataset("cub", "train-fullsup", 40, options, root)
    with pytest.raises(DataError, match="CUB/test is missing.*annotations = 'archive'"):
        open_dataset("cub", "test", 40, {}, root)
    assert len(open_dataset("cub", "test", 40, options, root)) == 2


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "images",
            "1 ../../a.jpg\n2 b/b.jpg\n3 c/c.jpg\n4 d/d.jpg",
            "images.txt in .*: line 1: .* is not a path below",
        ),
        ("image_class_labels", "1 1\n2 1\n3 2", "image_class_labels.txt .* no line for image '4'"),
        ("image_class_labels", "1 1\n2 0\n3 2\n4 2", "image_class_labels.txt .*line 2: expected integers from 1"),
        ("train_test_split", "1 1\n2 0\n3 1\n4 2", "train_test_split.txt .*line 4: expected integers from 0 to 1"),
        ("train_test_split", "1 1\n2 1\n3 1\n4 1", "has no image of test"),
        ("bounding_boxes", "1 0 0 5 5\n2 x 2 4 30\n3 0 0 5 5\n4 0 1 20 41", "line 2: expected numbers.*x,2,4,30"),
        (
            "bounding_boxes",
            "1 0 0 5 5\n2 0 2 nan 30\n3 0 0 5 5\n4 0 1 20 41",
            "bounding_boxes.txt .*line 2: expected numbers",
        ),
        ("bounding_boxes", "1 0 0 5 5\n2 0 2 4", "bounding_boxes.txt in .*: line 2: it has 4 columns, expected 5"),
    ],
)
def test_a_damaged_archive_is_named(root, archive, file, text, message):
    write(archive, {file: text})
    with pytest.raises(DataError, match=message):
        open_dataset("cub", "test", 40, {"annotations": "archive"}, root)


# What is there and what is missing


def states(name, root):
    return {part.what: (part.state, part.found, part.expected) for part in datasets.find(name).parts(root)}


def test_check_counts_metadata_images_and_masks(root):
    (root / "OpenImages" / "test" / "0138tl" / "2.jpg").unlink()
    (root / "OpenImages" / "val" / "0138tl" / "2_x.png").unlink()
    found = states("openimages", root)
    assert found == {
        "metadata of train-weaksup": ("incomplete", 4, 29_819),
        "images of train-weaksup": ("ok", 4, 4),
        "metadata of train-fullsup": ("incomplete", 4, 2_500),
        "images of train-fullsup": ("ok", 4, 4),
        "masks of train-fullsup": ("incomplete", 7, 8),
        "metadata of test": ("incomplete", 4, 5_000),
        "images of test": ("incomplete", 3, 4),
        "masks of test": ("ok", 8, 8),
    }


def test_check_of_an_empty_folder_says_where_to_get_everything(tmp_path):
    for name, images in (("cub", 5_994), ("ilsvrc", 1_281_167), ("openimages", 29_819)):
        found = states(name, tmp_path)
        assert found["metadata of train-weaksup"] == ("missing", 0, images)
        assert found["images of train-weaksup"] == ("missing", 0, images)
        text = datasets.describe(datasets.find(name).parts(tmp_path))
        assert text.count("Get it: ") == len(found)
        assert "https://github.com/clovaai/wsolevaluation" in text
    assert "https://image-net.org" in datasets.describe(datasets.find("ilsvrc").parts(tmp_path))
    (tmp_path / "ILSVRC" / "train").mkdir(parents=True)  # which images belong there only the metadata say
    assert states("ilsvrc", tmp_path)["images of train-weaksup"] == ("unknown", None, 1_281_167)
    assert states("tiny_imagenet", tmp_path) == {"lists of images": ("missing", 0, 1)}
    assert datasets.find("synthetic_birds").parts(tmp_path) == datasets.find("synthetic_birds").archives == ()


def test_check_knows_damaged_metadata_and_the_archive(root, archive):
    (root / "metadata" / "CUB" / "test" / "class_labels.txt").write_text("x")
    damaged = datasets.find("cub").parts(root)[4]
    assert (damaged.what, damaged.state) == ("metadata of test", "damaged")
    assert "class_labels.txt" in datasets.describe([damaged])
    (root / "metadata").rename(root / "elsewhere")
    found = states("cub", root)
    assert found["metadata of test"][1] == found["images of test"][1] == 2
    assert found["metadata of train-fullsup"][:2] == ("missing", 0)


def test_descriptions_are_aligned(root):
    (root / "CUB" / "001.Black_footed_Albatross" / "val_1.jpg").unlink()
    lines = datasets.describe(datasets.find("cub").parts(root)).split("\n")
    assert lines[0].startswith("incomplete  metadata of train-weaksup  4 of 5994  ")
    assert lines[2].startswith("ok          images of train-weaksup    4 of 4     ")
    assert "CUBV2" in lines[6]


def test_the_extent_is_known_without_the_data():
    extents = {name: datasets.find(name).extent for name in datasets.names()}
    assert [extents[name].classes for name in ("cub", "ilsvrc", "openimages")] == [200, 1_000, 100]
    assert [name for name in extents if extents[name].masks] == ["openimages"]
    assert extents["ilsvrc"].images == {"train-weaksup": 1_281_167, "train-fullsup": 10_000, "test": 50_000}
    tiny = datasets.find("tiny_imagenet", {"classes": 3, "test_per_class": 7}).extent
    assert (tiny.classes, tiny.images["test"], tiny.images["train-weaksup"]) == (3, 21, 1_350)
    assert datasets.find("synthetic_birds", {"test": 12}).extent.images["test"] == 12
