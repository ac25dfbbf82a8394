import time
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import SHARED
from wsolkit import datasets
from wsolkit.datasets import open_dataset, read_mask, read_metadata
from wsolkit.errors import DataError

SPLITS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}

IDS = ("a/1.jpg", "a/2.jpg", "b/3.jpg")
BOXES = {
    "image_ids": "a/1.jpg\na/2.jpg\nb/3.jpg",
    "class_labels": "a/1.jpg,0\na/2.jpg,0\nb/3.jpg,1",
    "image_sizes": "a/1.jpg,100,50\na/2.jpg,20,40\nb/3.jpg,64,64",
    "localization": "a/2.jpg,1,2,3,4\nb/3.jpg,0,0,63,63\na/1.jpg,10,5,60,45\na/2.jpg,0,0,19,39",
}
MASKS = {
    "image_ids": "v/a/1.jpg\nv/b/2.jpg",
    "class_labels": "v/a/1.jpg,0\nv/b/2.jpg,1",
    "image_sizes": "",
    "localization": "v/a/1.jpg,v/a/1_x.png,v/a/1_ignore.png\nv/a/1.jpg,v/a/1_y.png,\nv/b/2.jpg,v/b/2_x.png,",
}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def picture(path, width=20, height=40, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG" if path.suffix.lower() != ".png" else "PNG")
    return pixels


def mask_file(path, inside, channels=1):
    pixels = np.where(np.array(inside, bool), 255, 0).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels if channels == 1 else np.repeat(pixels[..., None], channels, 2))


# The reader of metadata


def test_metadata_of_boxes(tmp_path):
    metadata = read_metadata(write(tmp_path / "m", BOXES))
    assert metadata.image_ids == IDS
    assert metadata.labels.tolist() == [0, 0, 1]
    assert metadata.sizes == {"a/1.jpg": (100, 50), "a/2.jpg": (20, 40), "b/3.jpg": (64, 64)}
    assert {image: boxes.tolist() for image, boxes in metadata.boxes.items()} == {
        "a/1.jpg": [[10, 5, 60, 45]],
        "a/2.jpg": [[1, 2, 3, 4], [0, 0, 19, 39]],
        "b/3.jpg": [[0, 0, 63, 63]],
    }
    assert metadata.boxes["a/1.jpg"].dtype == np.int64
    assert metadata.masks is None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_files_from_windows_and_in_another_order_are_read_as_the_same(data, tmp_path_factory):
    """A byte order mark, CRLF, blank lines and spaces around cells mean nothing; nor does the order of lines."""
    folder = tmp_path_factory.mktemp("m")
    space, blank = st.sampled_from(["", " ", "  ", "\t"]), st.sampled_from(["", "", "\n", " \n\n"])
    original = data.draw(st.sampled_from([BOXES, MASKS]))
    for name, text in original.items():
        lines = text.split("\n")
        if name in ("class_labels", "image_sizes"):
            lines = data.draw(st.permutations(lines))
        cells = [[data.draw(space) + cell + data.draw(space) for cell in line.split(",")] for line in lines]
        text = data.draw(blank) + "".join(",".join(line) + "\n" + data.draw(blank) for line in cells)
        encoding, end = (
            data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
            data.draw(st.sampled_from(["\n", "\r\n", "\r\r\n", "\r"])),
        )
        (folder / f"{name}.txt").write_bytes(text.replace("\n", end).encode(encoding))
    plain = write(tmp_path_factory.mktemp("n"), original)
    assert read_metadata(folder).fingerprint() == read_metadata(plain).fingerprint()


def test_boxes_of_an_image_keep_their_order(tmp_path):
    lines = [f"{image},{n},0,{n},9" for n in range(200) for image in IDS[n % 2 :]]
    sizes = "\n".join(f"{image},200,9" for image in IDS)
    metadata = read_metadata(write(tmp_path / "m", {**BOXES, "image_sizes": sizes, "localization": "\n".join(lines)}))
    assert metadata.boxes["a/1.jpg"][:, 0].tolist() == list(range(0, 200, 2))
    assert metadata.boxes["b/3.jpg"][:, 2].tolist() == list(range(200))


def test_metadata_of_masks(tmp_path):
    metadata = read_metadata(write(tmp_path / "m", MASKS))
    assert metadata.boxes is None
    assert metadata.sizes is None
    assert metadata.masks == {
        "v/a/1.jpg": (("v/a/1_x.png", "v/a/1_y.png"), "v/a/1_ignore.png"),
        "v/b/2.jpg": (("v/b/2_x.png",), None),
    }


def test_weak_supervision_reads_labels_only(tmp_path):
    labels_only = {name: BOXES[name] for name in ("image_ids", "class_labels")}
    metadata = read_metadata(write(tmp_path / "m", labels_only), localization=False)
    assert metadata.labels.tolist() == [0, 0, 1]
    assert metadata.boxes is metadata.masks is metadata.sizes is None
    with pytest.raises(DataError, match=r"localization.txt is missing in .*m\. It holds id,x0,y0,x1,y1"):
        read_metadata(tmp_path / "m")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("image_ids", "", "image_ids.txt in .* is empty"),
        ("image_ids", "a/1.jpg\na/2.jpg\na/1.jpg", "line 1: 'a/1.jpg' occurs twice"),
        ("image_ids", "a/1.jpg\n\na/2.jpg", "class_labels.txt in .* line 3: 'b/3.jpg' is not in the list"),
        ("image_ids", "a/1.jpg,7\na/2.jpg,8", "line 1: it has 2 columns, expected 1"),
        ("image_ids", b"\xff\xfe\x00", "image_ids.txt in .* as text"),
        ("class_labels", b"a/1.jpg,0\n\xe9\n", "class_labels.txt in .* as text"),
        ("class_labels", "a/1.jpg,0\na/2.jpg,0", "class_labels.txt in .* no line for image 'b/3.jpg'"),
        ("class_labels", "a/1.jpg,0\n\na/2.jpg,0\nb/3.jpg,1\na/2.jpg,1", "line 5: 'a/2.jpg' occurs twice"),
        ("class_labels", "a/1.jpg,0\n\r\na/2.jpg,one\nb/3.jpg,1", "line 3: expected integers.*'one'"),
        ("class_labels", "a/1.jpg,0\na/2.jpg,-1\nb/3.jpg,1", "line 2: expected integers from 0 .*'-1'"),
        ("class_labels", f"a/1.jpg,0\na/2.jpg,{10**17}\nb/3.jpg,1", "line 2: expected integers"),
        ("class_labels", "a/1.jpg,0\na/2.jpg,\nb/3.jpg,1", "line 2: expected integers"),
        ("class_labels", "a/1.jpg,0\na/2.jpg\nb/3.jpg,1,2", "line 2: it has 1 columns, expected 2"),
        ("image_sizes", "a/1.jpg,100,50\na/2.jpg,20,0\nb/3.jpg,64,64", "image_sizes.txt .*line 2: .* from 1"),
        ("image_sizes", "a/1.jpg,100,50\na/2.jpg,20.5,4\nb/3.jpg,64,64", "line 2: expected integers.*'20.5,4'"),
        ("image_sizes", f"a/1.jpg,{10**30},50\na/2.jpg,2,4\nb/3.jpg,6,6", "line 1: expected integers"),
        ("image_sizes", "a/1.jpg,nan,50\na/2.jpg,2,4\nb/3.jpg,6,6", "line 1: expected integers"),
        ("localization", BOXES["localization"] + "\nc/9.jpg,1,2,3,4", "line 5: 'c/9.jpg' is not in the list"),
        ("localization", "a/1.jpg,1,2,3,4\na/2.jpg,5,2,3,4\nb/3.jpg,0,0,1,1", r"line 2: box \[5, 2, 3, 4\] is upside"),
        ("localization", "a/1.jpg,1,2,3,4\na/2.jpg,-1,2,3,4\nb/3.jpg,0,0,1,1", "line 2: expected integers from 0"),
        ("localization", "a/1.jpg,1,2,3,4\na/2.jpg,1,2,21,9\nb/3.jpg,0,0,1,1", "line 2: .* beyond .* 20x40 pixels"),
        ("localization", "a/1.jpg,1,2,3\na/2.jpg,1,2,3,4", "line 1: it has 4 columns, expected 5 or 3"),
        ("localization", "a/1.jpg,1,2,3,4\na/2.jpg,a.png,b.png", "line 2: it has 3 columns, expected 5"),
    ],
)
def test_damaged_metadata_is_named_with_its_line(tmp_path, file, text, message):
    folder = write(tmp_path / "m", BOXES)
    (folder / f"{file}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_metadata(folder)


def test_paths_do_not_lead_out_of_the_folder(tmp_path):
    for name in ("../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a/..", r"..\a.jpg", r"\a.jpg", "C:/a.jpg", "a\0b"):
        ids = {key: text.replace("a/2.jpg", name) for key, text in BOXES.items()}
        with pytest.raises(DataError, match="image_ids.txt in .*: line 2: .* is not a path below"):
            read_metadata(write(tmp_path / "ids", ids))
        for number, old in ((2, "v/a/1_y.png"), (1, "v/a/1_ignore.png")):
            masks = {**MASKS, "localization": MASKS["localization"].replace(old, name)}
            with pytest.raises(DataError, match=f"localization.txt in .*: line {number}: .* is not a path below"):
                read_metadata(write(tmp_path / "masks", masks))
    ids = {key: text.replace("a/2.jpg", "a../..2..jpg") for key, text in BOXES.items()}
    assert read_metadata(write(tmp_path / "m", ids)).image_ids[1] == "a../..2..jpg"


def test_masks_need_a_file_and_at_most_one_ignore_mask(tmp_path):
    second = MASKS["localization"].replace("1_y.png,", "1_y.png,v/a/other.png")
    with pytest.raises(DataError, match="line 2: 'v/a/1.jpg' has a second ignore mask"):
        read_metadata(write(tmp_path / "m", {**MASKS, "localization": second}))
    none = MASKS["localization"].replace("v/b/2_x.png", "")
    with pytest.raises(DataError, match="line 3: '' is not a path below"):
        read_metadata(write(tmp_path / "m", {**MASKS, "localization": none}))


def test_missing_metadata_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder.*github.com/clovaai/wsolevaluation"):
        read_metadata(tmp_path / "nowhere")


def test_time_grows_with_the_lines_and_not_their_square(tmp_path):
    ids = [f"train/{number // 200}/{number}.jpg" for number in range(60_000)]
    shuffled = list(reversed(ids))
    files = {
        "image_ids": "\n".join(ids),
        "class_labels": "\n".join(f"{image},{image.split('/')[1]}" for image in shuffled),
        "image_sizes": "\n".join(f"{image},9,9" for image in shuffled),
        "localization": "\n".join(f"{image},0,1,2,3" for image in shuffled),
    }
    folder = write(tmp_path / "m", files)
    start = time.monotonic()
    metadata = read_metadata(folder)
    assert time.monotonic() - start < 5
    assert metadata.labels[[0, 199, 200, -1]].tolist() == [0, 0, 1, 299]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("class_labels", "b/3.jpg,1", "b/3.jpg,2"),
        ("image_sizes", "64,64", "64,65"),
        ("localization", "63,63", "63,62"),
        ("localization", "a/1.jpg,10", "a/1.jpg,11"),
    ],
)
def test_the_fingerprint_changes_with_every_annotation(tmp_path, file, old, new):
    before = read_metadata(write(tmp_path / "m", BOXES)).fingerprint()
    assert read_metadata(write(tmp_path / "m", {**BOXES, file: BOXES[file].replace(old, new)})).fingerprint() != before


# The benchmark's real files


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    path = SHARED / "data" / "wsol-metadata.zip"
    if not path.is_file():
        pytest.skip("the benchmark's metadata is not on this machine")
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.data
@pytest.mark.parametrize(
    ("benchmark", "split", "images", "classes", "marks"),
    [
        ("CUB", "train", 5_994, 200, 5_994),
        ("CUB", "val", 1_000, 200, 1_000),
        ("CUB", "test", 5_794, 200, 5_794),
        ("ILSVRC", "val", 10_000, 1_000, 18_532),
        ("ILSVRC", "test", 50_000, 1_000, 80_477),
        ("OpenImages", "train", 29_819, 100, 0),
        ("OpenImages", "val", 2_500, 100, 3_854),
        ("OpenImages", "test", 5_000, 100, 7_632),
    ],
)
def test_the_real_metadata(real, benchmark, split, images, classes, marks):
    metadata = read_metadata(real / "metadata" / benchmark / split, localization=marks > 0)
    assert len(metadata.image_ids) == len(metadata.labels) == images
    assert np.unique(metadata.labels).tolist() == list(range(classes))
    found = [len(boxes) for boxes in (metadata.boxes or {}).values()]
    found += [len(masks.instances) for masks in (metadata.masks or {}).values()]
    assert sum(found) == marks
    assert not marks or (len(found) == images and min(found) == 1)


@pytest.mark.data
def test_the_real_metadata_line_by_line(real):
    cub = read_metadata(real / "metadata" / "CUB" / "test")
    first = "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    assert cub.image_ids[0] == first
    assert cub.sizes[first] == (500, 335)
    assert cub.boxes[first].tolist() == [[60, 27, 385, 331]]  # 60.0 27.0 325.0 304.0 in CUB's archive
    ilsvrc = read_metadata(real / "metadata" / "ILSVRC" / "test")
    assert ilsvrc.boxes["val/ILSVRC2012_val_00000002.JPEG"].tolist() == [[45, 49, 499, 162], [2, 69, 437, 207]]
    assert ilsvrc.labels[:3].tolist() == [65, 970, 230]
    masks = read_metadata(real / "metadata" / "OpenImages" / "test").masks["test/01226z/7af766bd43da900b.jpg"]
    assert masks.instances == tuple(f"test/01226z/7af766bd43da900b_m01226z_{n}.png" for n in ("6554d965", "8856c605"))
    assert masks.ignore == "test/01226z/7af766bd43da900b_ignore.png"


@pytest.mark.data
@pytest.mark.parametrize("benchmark", ["CUB", "ILSVRC"])
def test_real_boxes_on_pictures_of_the_stated_size(real, tmp_path, benchmark):
    (tmp_path / "metadata").symlink_to(real / "metadata")
    for split in ("train-fullsup", "test"):
        metadata = read_metadata(real / "metadata" / benchmark / SPLITS[split])
        data = open_dataset(benchmark.lower(), split, 224, {}, tmp_path)
        assert data.classes[7] == {"CUB": "Rhinoceros Auklet", "ILSVRC": "class 7"}[benchmark]
        for index in (0, len(data) // 3, len(data) - 1):
            image = metadata.image_ids[index]
            picture(tmp_path / benchmark / image, *metadata.sizes[image])
            sample = data[index]
            assert sample.image.shape == (224, 224, 3)
            sides = metadata.sizes[image] * 2
            expected = [[int(x * 224 / side) for x, side in zip(b, sides, strict=True)] for b in metadata.boxes[image]]
            assert sample.boxes.tolist() == expected
            assert 0 <= sample.boxes.min() <= sample.boxes.max() < 224


@pytest.mark.data
def test_the_real_masks(real, tmp_path):
    """Against PIL and plain indices: cell i of 224 is pixel i * side / 224, rounded down after OpenCV's float steps."""
    root = tmp_path / "maskdata" / "OpenImages"
    root.parent.mkdir()
    root.symlink_to(real / "test_data" / "test_masks")
    (tmp_path / "metadata").symlink_to(real / "metadata")

    def inside(path):
        with Image.open(root / path) as opened:
            pixels = np.asarray(opened.convert("L"))
        rows, columns = ((np.arange(224) * (1 / (224 / side))).astype(int) for side in pixels.shape)
        return pixels[rows][:, columns] > 0

    data = open_dataset("openimages", "train-fullsup", 224, {}, tmp_path)
    metadata = read_metadata(real / "metadata" / "OpenImages" / "val")
    counts = {}
    for name in ("0bt_c3/1cd9ac0169ec7df0", "0bt_c3/3a29f0b33894d4a6", "0bt_c3/3b3b9931325d65c9"):
        image = f"val/{name}.jpg"
        picture(tmp_path / "OpenImages" / image, 64, 48)
        sample = data[metadata.image_ids.index(image)]
        instances, ignore = metadata.masks[image]
        foreground = np.any([inside(path) for path in instances], axis=0)
        assert (sample.mask == np.where(foreground, 1, np.where(inside(ignore), 255, 0))).all()
        assert data.classes[sample.label] == "0bt_c3"
        counts[name[-4:]] = [int((sample.mask == value).sum()) for value in (1, 255)]
    assert counts == {"7df0": [43_031, 0], "d4a6": [833, 0], "65c9": [347, 35_919]}
    full = metadata.masks["val/0by6g/b4d953e7105da1d8.jpg"]
    assert (read_mask(root, *full, 224) == 1).all()


@pytest.mark.data
def test_check_of_the_real_metadata(real):
    cub, openimages = ({part.what: part for part in datasets.find(name).parts(real)} for name in ("cub", "openimages"))
    assert (cub["metadata of test"].state, cub["metadata of test"].found) == ("ok", 5_794)
    assert (cub["images of test"].state, cub["images of test"].expected) == ("missing", 5_794)
    assert [openimages[f"masks of {split}"].expected for split in ("train-fullsup", "test")] == [6_354, 12_632]
