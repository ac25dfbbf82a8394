import json
import multiprocessing

import pytest

from wsolkit.errors import CheckpointError, DataError, TrainingError, WsolkitError
from wsolkit.training import checkpoints, run_store
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import RunStore


def test_a_run_is_trained_once_and_complete(store, tiny):
    assert store.find(tiny) is None
    run = store.get(tiny)
    stamp = (run.folder / checkpoints.LAST).stat().st_mtime_ns
    assert store.get(tiny) == run == store.find(tiny)
    assert (run.folder / checkpoints.LAST).stat().st_mtime_ns == stamp
    assert len(run.history()) == 3
    info = run.info()
    assert info["recipe"] == tiny.key
    assert info["epochs_trained"] == 3
    assert info["device"] == "cpu"
    assert info["images_per_second"] > 0


def test_the_report_is_that_of_the_selected_weights(store, tiny, machine):
    from wsolkit.training.evaluation import evaluate

    run = store.get(tiny)
    again = evaluate(run.model(), machine.open(tiny, "test"), tiny.threshold_step)
    for metric in ("top1_loc", "top5_loc", "gt_known_loc", "max_box_acc_v2"):
        assert run.report().rate(metric) == pytest.approx(again.rate(metric), rel=1e-12, abs=0)
    kept = run.report().images.query("map == 'cam'")["iou_0.5"]
    assert kept.tolist() == pytest.approx(again.images["iou_0.5"].tolist(), rel=1e-6)  # single precision, as text


def test_pretraining_is_a_run_of_its_own_and_shared(store, tiny):
    before = tiny.changed(dataset="synthetic_objects", method="cam", method_options={})
    first, second = (tiny.changed(pretrained=before, seed=seed) for seed in (0, 1))
    store.get_all([first, second])
    trained = sorted(path.parent.name for path in store.root.glob(f"*/{run_store.DONE}"))
    assert trained == sorted(recipe.key for recipe in (before, first, second))


def test_several_at_once_give_the_same_as_one_after_the_other(store, tiny, tmp_path):
    before = tiny.changed(dataset="synthetic_objects", method="cam", method_options={})
    recipes = [tiny.changed(pretrained=before, seed=seed) for seed in (0, 1)] + [tiny.changed(pretrained=before)]
    together = store.get_all(recipes, jobs=2)
    alone = RunStore(tmp_path / "other", store.machine).get_all(recipes, jobs=1)
    for a, b in zip(together, alone, strict=True):
        assert a.recipe == b.recipe
        assert (a.folder / checkpoints.HISTORY).read_text() == (b.folder / checkpoints.HISTORY).read_text()
        for part in run_store.REPORT:
            assert (a.folder / f"test-{part}.csv").read_bytes() == (b.folder / f"test-{part}.csv").read_bytes()


def test_a_failing_run_does_not_hide_and_the_others_stay(store, tiny):
    broken = tiny.changed(lr_former=1000.0, lr_latter=1000.0, momentum=0.99)
    with pytest.raises(TrainingError, match="no longer finite"):
        store.get_all([tiny, broken], jobs=2)
    assert store.find(broken) is None
    assert store.get(tiny).info()["recipe"] == tiny.key


def _train(root, machine, recipe):
    RunStore(root, machine).get(recipe)


def test_two_processes_train_one_recipe_once(store, tiny):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_train, args=(store.root, store.machine, tiny)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert store.find(tiny).info()["epochs_trained"] == 3


def test_a_damaged_run_is_named(store, tiny):
    run = store.get(tiny)
    path = run.folder / checkpoints.BEST
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        run.model()


def test_a_run_made_from_other_data_is_not_taken_for_this_one(store, tiny, monkeypatch):
    from wsolkit.datasets import _synthetic

    store.get(tiny)
    monkeypatch.setattr(_synthetic, "DRAWING_VERSION", 10**6)
    later = RunStore(store.root, store.machine)
    with pytest.raises(DataError, match=f"Run {tiny.key} was trained on other synthetic_birds data .*train-weaksup"):
        later.get(tiny)


def test_what_is_missing_is_noticed_before_anything_is_written(tmp_path, machine, tiny):
    photos = tiny.changed(dataset="tiny_imagenet", dataset_options={})
    weights = tiny.changed(backbone="vgg16", pretrained="imagenet")
    nowhere = Machine(device="gpu7")
    for recipe, where, message in (
        (photos, machine, "needs data_root"),
        (weights, machine, "ImageNet weights not found"),
        (tiny, nowhere, "no device 'gpu7'"),
    ):
        with pytest.raises(WsolkitError, match=message):
            RunStore(tmp_path / "untouched", where).get(recipe)
        assert not (tmp_path / "untouched").exists()


def test_a_history_that_a_kill_cut_off_is_restored(store, tiny):
    whole = store.get(tiny)
    expected = (whole.folder / checkpoints.HISTORY).read_text()
    (whole.folder / checkpoints.HISTORY).unlink()
    (whole.folder / run_store.DONE).unlink()
    assert (store.get(tiny).folder / checkpoints.HISTORY).read_text() == expected


def test_a_store_that_cannot_be_written_is_an_error_of_the_kit(machine, tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WsolkitError, match="Cannot write to"):
        RunStore(tmp_path / "file", machine).get(tiny)


def test_the_recipe_lies_beside_the_run(store, tiny):
    run = store.get(tiny)
    assert json.loads((run.folder / run_store.RECIPE).read_text()) == json.loads(tiny.to_json())


def test_a_run_knows_with_which_files_it_was_trained(store, tiny, monkeypatch, wsolkit, tmp_path):
    run = store.get(tiny)
    assert run.changed_code() == []
    (tmp_path / "recipe.json").write_text(tiny.to_json())
    monkeypatch.setenv("WSOLKIT_RUNS", str(store.root))
    code, out, errors = wsolkit("train", tmp_path / "recipe.json")
    assert (code, out.strip()) == (0, str(run.folder))
    assert "It was trained before" in errors
    assert "has changed" not in errors
    changed = run.info() | {"code": run.info()["code"] | {f"methods/{tiny.method}.py": "0" * 12}}
    (run.folder / "run.json").write_text(json.dumps(changed))
    assert f"wsolkit/methods/{tiny.method}.py has changed since" in wsolkit("train", tmp_path / "recipe.json")[2]
