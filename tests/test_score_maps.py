import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests import reference
from wsolkit.cli import app
from wsolkit.datasets import open_dataset, read_metadata, scale_boxes
from wsolkit.errors import DataError, WsolkitError
from wsolkit.metrics import BoxMeter
from wsolkit.metrics.score_maps import NAMED, check_folder, score_folder, write_json, write_maps, write_metadata

IMAGES = {"a/1.jpg": (100, 60), "a/2.jpg": (60, 90), "b/3.jpg": (80, 80), "b/4.jpg": (64, 48)}
BOXES = {
    "a/1.jpg": [(10, 5, 70, 50)],
    "a/2.jpg": [(0, 0, 30, 40), (30, 50, 59, 89)],
    "b/3.jpg": [(20, 20, 60, 60)],
    "b/4.jpg": [(3, 7, 40, 33)],
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Metadata and smooth random maps of four images."""
    metadata, maps = tmp_path / "metadata", tmp_path / "maps"
    metadata.mkdir()
    lines = {
        "image_ids": IMAGES,
        "class_labels": (f"{name},{number // 2}" for number, name in enumerate(IMAGES)),
        "image_sizes": (f"{name},{width},{height}" for name, (width, height) in IMAGES.items()),
        "localization": (",".join(map(str, (name, *box))) for name, boxes in BOXES.items() for box in boxes),
    }
    for name, rows in lines.items():
        (metadata / f"{name}.txt").write_text("\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    for name in IMAGES:
        save(maps, name, np.kron(rng.random((4, 5)), np.ones((8, 8))))
    return metadata, maps


def save(maps: Path, name: str, score: np.ndarray) -> None:
    path = maps / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, score)


def plainly(maps: Path, step: float, contours: str) -> dict:
    """The same rates by the plain reference, over all thresholds."""
    thresholds = np.arange(0, 1, step)
    ious = []
    for name, (width, height) in IMAGES.items():
        score = np.load(maps / f"{name}.npy")
        truth = scale_boxes(np.array(BOXES[name]), width, height, score.shape)
        ious.append(reference.best_ious(score, truth, thresholds, contours))
    shares = {delta: (np.array(ious) >= delta).mean(0) for delta in (0.3, 0.5, 0.7)}
    return {
        "contours": contours,
        "threshold_step": step,
        "n_images": len(IMAGES),
        "max_box_acc": {str(delta): share.max() for delta, share in shares.items()},
        "best_threshold": {str(delta): thresholds[share.argmax()] for delta, share in shares.items()},
        "max_box_acc_v2": pytest.approx(np.mean([share.max() for share in shares.values()]), rel=1e-12),
    }


@pytest.mark.parametrize("contours", ["all", "largest"])
def test_the_command_gives_the_benchmarks_rates(folders, tmp_path, contours):
    metadata, maps = folders
    save(maps, "b/3.jpg", np.load(maps / "b/3.jpg.npy").astype(np.float32)[:24])  # another size and type
    out = tmp_path / "new" / "result.json"
    arguments = ["--score-maps", maps, "--metadata", metadata, "--contours", contours, "--json", out]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--threshold-step", "0.02"])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found == plainly(maps, 0.02, contours)
    assert f"{found['max_box_acc_v2']:.2%}" in done.output
    assert ("MaxBoxAccV2" in done.output) == (contours == "all")
    assert done.output.count("MaxBoxAcc at IoU") == 3


def test_threads_change_nothing_and_the_default_step_is_the_benchmarks(folders):
    metadata, maps = folders
    split = read_metadata(metadata)
    one, three = (score_folder(maps, split, threads=threads) for threads in (1, 3))
    assert one["curve"].shape == (1000, 3)
    assert (one["curve"] == three["curve"]).all()


def test_maps_of_few_cells_are_judged_with_a_warning(folders, caplog):
    metadata, maps = folders
    score_folder(maps, read_metadata(metadata))
    assert not caplog.text
    save(maps, "b/3.jpg", np.load(maps / "b/3.jpg.npy")[:14, :14])
    assert score_folder(maps, read_metadata(metadata))["n_images"] == 4
    assert "Maps of 14 pixels" in caplog.text


BROKEN = {
    "missing": None,
    "with NaN": np.full((8, 8), np.nan),
    "outside [0, 1]": np.full((8, 8), 1.5),
    "of type uint8, not float": np.zeros((8, 8), np.uint8),
    "of shape (1, 8, 8), not (height, width)": np.zeros((1, 8, 8)),
    "not a NumPy file": "text",
}


@pytest.mark.parametrize("reason", list(BROKEN))
def test_a_broken_map_is_named_and_nothing_is_scored(folders, reason, tmp_path):
    metadata, maps = folders
    path = maps / "b/3.jpg.npy"
    path.unlink()
    content = BROKEN[reason]
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(DataError) as caught:
        score_folder(maps, read_metadata(metadata))
    assert "1 of 4" in str(caught.value)
    assert f"1 {reason}: b/3.jpg" in str(caught.value)


def test_broken_maps_are_counted_by_kind(folders):
    metadata, maps = folders
    (maps / "a/1.jpg.npy").unlink()
    (maps / "a/2.jpg.npy").unlink()
    save(maps, "b/4.jpg", -np.ones((4, 4)))
    with pytest.raises(
        DataError, match="3 of 4.*\n  2 missing: a/1.jpg, a/2.jpg\n  1 outside .0, 1.: b/4.jpg"
    ) as caught:
        score_folder(maps, read_metadata(metadata))
    assert check_folder(maps, read_metadata(metadata), threads=2) == str(caught.value)


def test_a_pickled_map_is_not_run(folders):
    metadata, maps = folders
    assert check_folder(maps, read_metadata(metadata)) == ""
    np.save(maps / "a/1.jpg.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="1 not a NumPy file: a/1.jpg"):
        score_folder(maps, read_metadata(metadata))
    for judge in (score_folder, check_folder):
        with pytest.raises(DataError, match="Score maps not found: .*gone is not a folder"):
            judge(maps / "gone", read_metadata(metadata))


def test_damage_anywhere_in_a_file_is_named_or_harmless(folders):
    """Seeded: bytes of the header changed, cut or added; the other maps are read all the same."""
    metadata, maps = folders
    path, split, rng = maps / "b/3.jpg.npy", read_metadata(metadata), np.random.default_rng(0)
    (maps / "a/1.jpg.npy").unlink()
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, 128, rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        cut = int(rng.choice([len(damaged), int(rng.integers(len(damaged)))]))
        path.write_bytes(damaged[:cut])
        said = check_folder(maps, split)
        assert "1 missing: a/1.jpg" in said
        assert said.count("\n  ") == 1 or ": b/3.jpg" in said


@pytest.mark.parametrize("shape", ["(999999999, 999999999)", "(200000, 200000)"])
def test_a_claimed_shape_allocates_nothing(folders, shape):
    metadata, maps = folders
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (maps / "b/3.jpg.npy").write_bytes(start + bytes(64))
    tracemalloc.start()
    assert "1 not a NumPy file: b/3.jpg" in check_folder(maps, read_metadata(metadata))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("target", ["", "folder"])
def test_a_result_is_not_written_over_a_folder(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(WsolkitError, match="it is a folder"):
        write_json({"n_images": 1}, Path(target))


def test_an_empty_folder_lists_some_names_and_counts_the_rest(tmp_path):
    metadata = tmp_path / "metadata"
    metadata.mkdir()
    names = [f"{number}.jpg" for number in range(NAMED + 7)]
    (metadata / "image_ids.txt").write_text("\n".join(names))
    (metadata / "class_labels.txt").write_text("\n".join(f"{name},0" for name in names))
    (metadata / "image_sizes.txt").write_text("\n".join(f"{name},9,9" for name in names))
    (metadata / "localization.txt").write_text("\n".join(f"{name},1,1,5,5" for name in names))
    with pytest.raises(DataError, match=f"{NAMED + 7} missing: 0.jpg, .*{NAMED - 1}.jpg and 7 more"):
        score_folder(tmp_path, read_metadata(metadata))


def test_masks_give_pxap(tmp_path):
    cv2 = pytest.importorskip("cv2")
    metadata, maps, masks = tmp_path / "metadata", tmp_path / "maps", tmp_path / "masks"
    for folder in (metadata, masks):
        folder.mkdir()
    rng, truth = np.random.default_rng(1), {}
    rows = []
    for name in ("x.jpg", "y.jpg"):
        inside, ignored = np.zeros((2, 16, 24), np.uint8)
        inside[2:9, 3:14], ignored[7:12, 10:20] = 255, 255
        cv2.imwrite(str(masks / f"{name}.m.png"), inside)
        cv2.imwrite(str(masks / f"{name}.i.png"), ignored)
        truth[name] = np.where(inside > 0, 1, np.where(ignored > 0, 255, 0))
        rows.append(f"{name},{name}.m.png,{name}.i.png")
        save(maps, name, rng.random((16, 24)))
    (metadata / "image_ids.txt").write_text("x.jpg\ny.jpg\n")
    (metadata / "class_labels.txt").write_text("x.jpg,0\ny.jpg,1\n")
    (metadata / "localization.txt").write_text("\n".join(rows) + "\n")
    arguments = ["--score-maps", maps, "--metadata", metadata, "--json", tmp_path / "out.json"]
    refused = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert "--mask-root" in str(refused.exception)
    done = CliRunner().invoke(app, ["evaluate", *map(str, [*arguments, "--mask-root", masks])])
    assert done.exit_code == 0, done.output
    scores = [np.load(maps / f"{name}.npy") for name in truth]
    expected = reference.pxap(scores, list(truth.values()), 0.001)
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "threshold_step": 0.001,
        "n_images": 2,
        "pxap": pytest.approx(expected, rel=1e-12),
    }
    for name in truth:
        cv2.imwrite(str(masks / f"{name}.m.png"), np.zeros((16, 24), np.uint8))
    with pytest.raises(DataError, match=r"x.jpg.m.png, of image x.jpg.* 255 means ignored"):
        score_folder(maps, read_metadata(metadata), masks)


def test_metadata_that_cannot_judge_is_refused(folders):
    metadata, maps = folders
    with pytest.raises(ValueError, match="Image b/3.jpg has a score map outside .0, 1."):
        write_maps(maps, ["b/3.jpg"], [np.full((3, 3), 2.0)])
    outside = replace(read_metadata(metadata), boxes={name: np.array([[90, 5, 10, 9]]) for name in IMAGES})
    with pytest.raises(DataError, match="of image a/1.jpg is not a box"):
        score_folder(maps, outside)
    with pytest.raises(DataError, match="neither boxes nor masks"):
        score_folder(maps, read_metadata(metadata, localization=False))


def test_what_is_written_is_what_is_read(tmp_path):
    data = open_dataset("synthetic_birds", "test", 32, {"test": 6})
    maps = np.random.default_rng(0).random((4, 32, 32))
    write_metadata(tmp_path / "metadata", data, range(1, 5))
    write_maps(tmp_path / "maps", [data[number].image_id for number in range(1, 5)], maps)
    split = read_metadata(tmp_path / "metadata")
    assert split.labels.tolist() == data.labels[1:5].tolist()
    meter = BoxMeter(threshold_step=0.01)
    meter.update(maps, [data[number].boxes for number in range(1, 5)])
    found = score_folder(tmp_path / "maps", split, threshold_step=0.01)
    assert (found["curve"] == meter.compute()["curve"]).all()


def test_a_map_under_another_name_is_pointed_out(folders):
    metadata, maps = folders
    (maps / "b" / "3.jpg.npy").rename(maps / "b" / "3.npy")
    said = check_folder(maps, read_metadata(metadata))
    assert "1 missing: b/3.jpg" in said
    assert "There is b/3.npy; the file of image b/3.jpg is b/3.jpg.npy." in said
    (maps / "b" / "3.npy").rename(maps / "3.jpg.npy")
    assert "There is 3.jpg.npy;" in check_folder(maps, read_metadata(metadata))
    (maps / "3.jpg.npy").unlink()
    assert "There is" not in check_folder(maps, read_metadata(metadata))
