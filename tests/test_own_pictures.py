"""Reading pictures and class names that a user gives."""

import os
import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsolkit.errors import DataError
from wsolkit.localize import pictures

TALL = np.zeros((40, 20, 3), np.uint8)
TALL[:20, :10] = 255  # a white corner, top left, as a viewer shows it


def read(path) -> np.ndarray:
    return np.asarray(pictures.read_picture(path)).astype(int)


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_turned_as_viewers_show_it(tmp_path, orientation, extension):
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions that undo each orientation
    stored = Image.fromarray(TALL)
    if orientation in back:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"x.{extension}", exif=exif)
    assert np.abs(read(tmp_path / f"x.{extension}") - TALL).mean() < 8


RAMP = np.arange(64 * 16).reshape(16, 64)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("x.png", (RAMP * 64).astype(np.uint16), RAMP * 64 / 257),
        ("x.tif", (RAMP * 64).astype(np.uint16), RAMP * 64 / 257),
        ("x.tif", (RAMP * 64).astype(">u2"), RAMP * 64 / 257),
        ("x.pgm", (RAMP * 64).astype(np.uint16), RAMP * 64 / 257),
        ("x.png", (RAMP % 100).astype(np.uint16), (RAMP % 100) / 257),
        ("x.tif", (RAMP % 256).astype(np.int32), RAMP % 256),
        ("x.tif", (RAMP * 64).astype(np.int32), RAMP * 64 / 257),
        ("x.tif", (RAMP * 2_000_000).astype(np.int32), RAMP / RAMP.max() * 255),
        ("x.tif", (RAMP - 500).astype(np.int32), RAMP / RAMP.max() * 255),
        ("x.tif", (RAMP / 2000).astype(np.float32), RAMP / 2000 * 255),
        ("x.tif", (RAMP / 10 - 30).astype(np.float32), RAMP / RAMP.max() * 255),
        ("x.tif", np.full((16, 64), 300, np.float32), np.zeros((16, 64))),
        (
            "x.tif",
            np.where(RAMP == 5, np.nan, RAMP / 2000).astype(np.float32),
            np.where(RAMP == 5, 0, RAMP / 2000 * 255),
        ),
        ("x.tif", np.full((16, 64), np.nan, np.float32), np.zeros((16, 64))),
    ],
)
def test_grey_values_are_scaled_to_eight_bits(tmp_path, name, values, expected):
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(read(tmp_path / name) - expected[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("mode", "name"),
    [(mode, name) for mode in ("RGBA", "LA", "P") for name in ("x.png", "x.webp")]
    + [("RGBA", "x.tif"), ("LA", "x.tif"), ("RGBA", "x.gif"), ("RGBA", "x.avif"), ("RGBA", "x.ico")],
)
def test_transparent_parts_are_white(tmp_path, mode, name):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (0, 0, 0, 255)
    picture = Image.fromarray(pixels)
    (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(tmp_path / name)
    assert read(tmp_path / name)[:8].max() <= 3
    assert read(tmp_path / name)[8:].min() >= 252


def test_half_transparent_pixels_and_transparent_colours_are_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert read(tmp_path / "half.png").max() in (126, 127, 128)
    for mode, colour in (("L", 7), ("RGB", (1, 2, 3)), ("1", 0), ("I;16", 700)):
        Image.new(mode, (4, 4), colour).save(tmp_path / "key.png", transparency=colour)
        assert read(tmp_path / "key.png").min() == 255


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "x.jpg"), ("CMYK", "x.tif"), ("1", "x.png"), ("YCbCr", "x.jpg")])
def test_other_modes_become_rgb(tmp_path, mode, name):
    Image.fromarray(TALL).convert(mode).save(tmp_path / name)
    assert np.abs(read(tmp_path / name) - TALL).mean() < 8


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif", "avif"])
def test_an_animation_shows_its_first_frame(tmp_path, extension):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / f"x.{extension}", save_all=True, append_images=[second])
    assert read(tmp_path / f"x.{extension}")[..., 0].min() > 240


@pytest.mark.parametrize("extension", ["png", "jpg", "gif", "bmp", "tif", "webp", "avif", "ppm"])
def test_a_damaged_picture_is_read_or_refused_but_never_crashes(tmp_path, extension):
    draw = random.Random(extension)
    path = tmp_path / f"x.{extension}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(path, exif=exif)
    whole = path.read_bytes()
    for _ in range(150):
        broken = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.3 else whole)
        for _ in range(draw.randrange(6) if broken else 0):
            start = draw.randrange(min(len(broken), draw.choice([40, 400, len(broken)])))
            piece = draw.randbytes(draw.choice([1, 1, 4]))
            broken[start : start + len(piece)] = piece
        path.write_bytes(broken)
        with suppress(DataError):
            assert pictures.read_picture(path).mode == "RGB"


def test_a_wrong_chunk_a_pipe_a_lost_link_and_a_bomb_are_refused(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "chunk.png")
    content = (tmp_path / "chunk.png").read_bytes()
    (tmp_path / "chunk.png").write_bytes(content.replace(b"IDAT", b"\x00DAT"))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "big.png")
    monkeypatch.setattr(pictures, "PIXELS", 9_999)
    reasons = {"chunk": "not a picture|Cannot read", "pipe": "not a file", "link": "missing", "big": "100x100"}
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason) as refused:
            pictures.read_picture(tmp_path / f"{name}.png")
        assert f"{name}.png" in str(refused.value)


def test_a_folder_stands_for_its_pictures(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "._a.png", "c.webp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in pictures.find_pictures([tmp_path])] == ["a.png", "b.JPG", "c.webp"]
    assert pictures.find_pictures([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"]
    for wrong in (tmp_path / "folder.png", tmp_path / "gone.png", tmp_path / ("x" * 5000)):
        with pytest.raises(DataError, match="No pictures in|does not exist"):
            pictures.find_pictures([wrong])


NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), min_size=1)
FROM = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=NAMES,
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.sampled_from(["", "{0}", "{0}  {0}{0}"]),
    encoding=FROM,
)
def test_names_are_read_whatever_system_wrote_them(tmp_path, names, end, last, encoding):
    (tmp_path / "names.txt").write_bytes((end.join(names) + last.format(end)).encode(encoding))
    assert pictures.read_names(tmp_path / "names.txt") == tuple(names)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"caf\xe9", b"\x89PNG\r\n\x1a\n", b"\xff\xfea", None])
def test_what_holds_no_names_is_refused(tmp_path, content):
    file = tmp_path / "names.txt"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"names\.txt"):
        pictures.read_names(file)
