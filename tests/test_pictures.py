"""Masks of every kind, and damaged bytes of every file that the data sets read."""

import io
import tarfile
import zipfile
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image, features

from tests.test_benchmark_data import BOXES, mask_file, write
from wsolkit.datasets import read_mask, read_metadata
from wsolkit.datasets._files import Files
from wsolkit.datasets._pictures import decode
from wsolkit.errors import DataError


def test_mask_is_union_of_instances_and_ignore_without_them(tmp_path):
    mask_file(tmp_path / "x.png", [[1, 0, 0, 0]] * 4)
    mask_file(tmp_path / "y.png", [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], channels=3)
    mask_file(tmp_path / "ignore.png", [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], channels=3)
    assert read_mask(tmp_path, ("x.png", "y.png"), "ignore.png", 4).tolist() == [
        [1, 1, 255, 0],
        [1, 255, 255, 0],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    unignored = read_mask(tmp_path, ["y.png"], None, 4)
    assert unignored.dtype == np.uint8
    assert unignored.sum() == unignored[0, 1] == 1


def test_masks_are_resized_to_the_nearest_pixel(tmp_path):
    """From 5 x 3 to 2 x 2: columns 0 and 2 (of 2.5), rows 0 and 1 (of 1.5) are taken."""
    mask_file(tmp_path / "x.png", [[0, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
    assert read_mask(tmp_path, ["x.png"], None, 2).tolist() == [[0, 1], [1, 0]]
    assert read_mask(tmp_path, ["x.png"], None, (1, 5)).tolist() == [[0, 1, 1, 1, 1]]


def stored(values, mode):
    """A mask file of some kind with the given instance numbers, as bytes."""
    written, grey = io.BytesIO(), Image.fromarray(values)
    if mode == "palette":
        grey.putpalette([0, 0, 0, 0, 0, 1, 90, 0, 0])
        grey.save(written, "PNG")
    elif mode in ("png", "tiff"):
        grey.save(written, mode.upper())
    elif mode.startswith("cv"):
        kind, channels = mode.split()[1], int(mode.split()[2])
        colour = np.zeros((*values.shape, channels), values.dtype)
        colour[..., 0] = values
        if channels == 4:
            colour[..., 3] = 1
        written.write(cv2.imencode(f".{kind}", colour)[1].tobytes())
    else:
        opaque = Image.new("L", grey.size, 255)
        Image.merge(mode, [grey] + [opaque.point(lambda _: 0)] * (len(mode) - 2) + [opaque]).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        *[(bool, mode) for mode in ("png", "tiff")],
        *[(np.uint8, mode) for mode in ("png", "tiff", "palette", "LA", "RGBA", "cv png 3", "cv tiff 3", "cv png 4")],
        *[(np.uint16, mode) for mode in ("png", "tiff", "cv png 3", "cv png 4", "cv tiff 3")],
        *[(np.int32, "tiff"), (np.float32, "tiff"), (np.int16, "cv tiff 1"), (np.int32, "cv tiff 3")],
        *[(np.float64, "cv tiff 1"), (np.float32, "cv tiff 4")],
    ],
)
def test_foreground_is_whatever_is_not_stored_as_0(tmp_path, dtype, mode):
    """In every depth and kind of file, down to instance number 1, which is black once it is reduced to 8-bit grey."""
    ids = np.array([[0, 1, 0], [1, 2, 0], [0, 0, 0]])
    values = ids * 0.25 if np.dtype(dtype).kind == "f" else ids
    (tmp_path / "x").write_bytes(stored(values.astype(dtype), mode))
    assert read_mask(tmp_path, ["x"], None, 3).tolist() == (ids > 0).tolist()
    (tmp_path / "empty").write_bytes(stored(np.zeros_like(ids).astype(dtype), mode))
    assert not read_mask(tmp_path, ["empty"], None, 3).any()
    assert read_mask(tmp_path, ["empty"], "x", 3).tolist() == (255 * (ids > 0)).tolist()


def test_a_number_that_is_none_is_background(tmp_path):
    Image.fromarray(np.array([[np.nan, 0.5]], np.float32)).save(tmp_path / "x.tif")
    assert read_mask(tmp_path, ["x.tif"], None, (1, 2)).tolist() == [[0, 1]]


def test_mask_files_that_are_missing_or_empty_are_named(tmp_path, capfd):
    mask_file(tmp_path / "x.png", [[1]])
    with pytest.raises(DataError, match="Cannot read the mask .*gone.png"):
        read_mask(tmp_path, ["x.png"], "gone.png", 4)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"mask .*x.png is an empty file\. Copy it again\.$"):
        read_mask(tmp_path, ["x.png"], None, 4)
    assert capfd.readouterr() == ("", "")


# Damaged bytes


def damaged(content, rng):
    """Bytes cut off, overwritten, or both."""
    spoilt = bytearray(content)
    for _ in range(rng.integers(1, 12)):
        place = int(rng.integers(len(spoilt)))
        noise = rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8).tobytes()
        spoilt[place : place + len(noise)] = noise
    return bytes(spoilt[: int(rng.integers(len(spoilt)))] if rng.random() < 0.4 else spoilt)


def test_whatever_byte_is_damaged_the_error_is_one_of_the_kit(tmp_path):
    """Seeded: pictures, masks, lists and archives either read or give a DataError, never what a decoder raises."""
    rng, few = np.random.default_rng(0), np.tile(np.arange(48, dtype=np.uint8), (40, 1))
    contents = {}
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"):
        if kind not in ("WEBP", "AVIF") or features.check(kind.lower()):
            written = io.BytesIO()
            Image.fromarray(few).convert("RGB").save(written, kind)
            contents[kind] = written.getvalue()
    masks = [
        stored(few.astype(dtype), mode) for dtype, mode in ((bool, "png"), (np.uint8, "palette"), (np.uint8, "RGBA"))
    ]
    masks += [stored(few.astype(np.uint16), "cv png 3"), stored(few.astype(np.float32), "tiff"), contents["JPEG"]]
    archives = []
    for suffix in ("zip", "tar", "tgz"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("wnids.txt", "b.png"):
                archive.writestr(f"top/{name}", contents["PNG"] if name == "b.png" else "n01\nn02\n" * 40)
        if suffix != "zip":
            with tarfile.open(tmp_path / f"a.{suffix}", "w:gz" if suffix == "tgz" else "w") as archive:
                for name, text in (("top/wnids.txt", b"n01\n" * 40), ("top/b.png", contents["PNG"])):
                    member = tarfile.TarInfo(name)
                    member.size = len(text)
                    archive.addfile(member, io.BytesIO(text))
        archives.append((tmp_path / f"a.{suffix}").read_bytes())
    refused = Counter()

    def attempt(kind, read):
        try:
            read()
        except DataError as error:
            refused[kind] += kind in str(error)

    for _ in range(60):
        for kind, content in contents.items():
            attempt(f"a.{kind}", lambda kind=kind, content=content: decode(damaged(content, rng), f"a.{kind}"))
        for number, content in enumerate(masks):
            (tmp_path / f"mask{number}").write_bytes(damaged(content, rng))
            attempt(f"mask{number}", lambda number=number: read_mask(tmp_path, [f"mask{number}"], None, 8))
        for name, text in BOXES.items():
            folder = write(tmp_path / "m", BOXES)
            (folder / f"{name}.txt").write_bytes(damaged(text.encode(), rng))
            attempt(str(folder), lambda: read_metadata(tmp_path / "m"))
        for content in archives:
            (tmp_path / "archive").write_bytes(damaged(content, rng))

            def read():
                files = Files(tmp_path / "archive", "wnids.txt", "*")
                files.table("wnids.txt", (1,))
                files.picture("b.png")

            attempt("archive", read)
    assert all(refused[f"a.{kind}"] for kind in contents)
    assert all(refused[f"mask{number}"] for number in range(len(masks)))
    assert refused["archive"] > 60
