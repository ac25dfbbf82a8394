import dataclasses
import json
import platform
import re
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_recipe
from wsolkit import methods
from wsolkit.datasets import CachedDataset, UncachedDataset, open_dataset
from wsolkit.errors import CheckpointError, TrainingError
from wsolkit.methods import bridging
from wsolkit.system import folders
from wsolkit.training import checkpoints, loop
from wsolkit.training import machine as machines
from wsolkit.training.loading import crop, draw_windows, epoch_generator, normalise, training_batches
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import DONE, RunStore


def run(recipe, folder, machine, **more):
    folder.mkdir(exist_ok=True)
    model = loop.train(recipe, folder, machine, **more)
    return model, pd.read_csv(folder / checkpoints.HISTORY)


def same_weights(first, second) -> bool:
    return all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


class StopAfter:
    """Asks for a stop after some steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self) -> bool:
        self.steps -= 1
        return self.steps <= 0


def test_history_tells_stages_rates_and_terms(tiny, tmp_path, machine):
    _, history = run(tiny, tmp_path / "run", machine)
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["stage"].tolist() == ["warm", "main", "main"]
    assert history["lr_latter"].tolist() == pytest.approx([0.05, 0.05, 0.01])
    assert history["loss_sim"].isna().tolist() == [True, False, False]
    options = tiny.method_options
    weighted = history["loss_ce"] + options["lambda_drop"] * history["loss_drop"]
    weighted += (options["lambda_sim"] * history["loss_sim"] + options["lambda_norm"] * history["loss_norm"]).fillna(0)
    assert history["loss_total"].tolist() == pytest.approx(weighted.tolist(), rel=1e-5)
    assert history["fullsup_max_box_acc_v2"].between(0, 1).all()


def test_training_learns(tmp_path, machine):
    data = {"train_weaksup": 40, "train_fullsup": 8, "test": 8}
    schedule = {"epochs": 25, "lr_decay_epochs": (20,), "lr_former": 0.05}
    recipe = tiny_recipe(method="cam", method_options={}, dataset_options=data, **schedule)
    _, history = run(recipe, tmp_path / "run", machine)
    assert history["loss_ce"].iloc[-1] < 0.5 * history["loss_ce"].iloc[0]
    assert history["train_top1_cls"].iloc[-1] > 0.5


def test_the_same_recipe_gives_the_same_numbers(tiny, tmp_path, machine):
    first, history = run(tiny, tmp_path / "a", machine)
    second, again = run(tiny, tmp_path / "b", machine)
    other, different = run(tiny.changed(seed=1), tmp_path / "c", machine)
    assert same_weights(first, second)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert not same_weights(first, other)
    assert history["loss_ce"].tolist() != different["loss_ce"].tolist()


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_a_stopped_run_resumes_to_the_very_same_end(tiny, tmp_path, machine, steps):
    whole, history = run(tiny, tmp_path / "whole", machine)
    folder = tmp_path / "parts"
    with pytest.raises(loop.Stopped, match="goes on from epoch"):
        run(tiny, folder, machine, should_stop=StopAfter(steps))
    resumed, again = run(tiny, folder, machine)
    assert same_weights(whole, resumed)
    pd.testing.assert_frame_equal(history, again, check_exact=True)


def test_an_interrupt_leaves_a_run_that_resumes(tiny, tmp_path, machine, monkeypatch):
    whole, _ = run(tiny, tmp_path / "whole", machine)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "parts", machine, should_stop=interrupt)
    resumed, _ = run(tiny, tmp_path / "parts", machine)
    assert same_weights(whole, resumed)


def test_the_selected_epoch_is_the_best_on_train_fullsup(tmp_path, machine):
    recipe = tiny_recipe(epochs=5)
    _, history = run(recipe, tmp_path / "run", machine)
    _, header = checkpoints.load(tmp_path / "run" / checkpoints.BEST)
    assert header == {"epoch": int(history["fullsup_max_box_acc_v2"].idxmax()) + 1, "recipe": recipe.key}
    run(recipe.changed(select_by="last"), tmp_path / "last", machine)
    assert checkpoints.load(tmp_path / "last" / checkpoints.BEST)[1]["epoch"] == 5


def test_pxap_can_select_too(tmp_path, machine):
    recipe = tiny_recipe(epochs=4, select_by="pxap")
    _, history = run(recipe, tmp_path / "run", machine)
    _, header = checkpoints.load(tmp_path / "run" / checkpoints.BEST)
    assert header["epoch"] == int(history["fullsup_pxap"].idxmax()) + 1


def test_snapshots_hold_the_weights_of_their_epochs(tiny, tmp_path, machine):
    recipe = tiny.changed(snapshot_epochs=(1, 3))
    model, _ = run(recipe.changed(select_by="last"), tmp_path / "run", machine)
    kept = sorted(path.name for path in (tmp_path / "run").glob("epoch-*"))
    assert kept == [checkpoints.snapshot(1), checkpoints.snapshot(3)]
    first, last = (checkpoints.load(tmp_path / "run" / name)[0] for name in kept)
    assert all((last[name] == tensor).all() for name, tensor in model.state_dict().items())
    shorter, _ = run(tiny.changed(epochs=1, select_by="last"), tmp_path / "shorter", machine)
    assert all((first[name] == tensor).all() for name, tensor in shorter.state_dict().items())


def test_a_selection_that_the_annotation_does_not_allow_is_refused_before_training(
    tiny, tmp_path, machine, monkeypatch
):
    sample = machine.open(tiny, "train-fullsup")[0]
    masked = dataclasses.replace(sample, boxes=np.zeros((0, 4), np.int64))
    monkeypatch.setattr(CachedDataset, "__getitem__", lambda self, index: masked)
    with pytest.raises(TrainingError, match="'max_box_acc_v2' is not possible.*no boxes.*pxap, top1_cls, last"):
        run(tiny, tmp_path / "run", machine)
    assert not (tmp_path / "run" / checkpoints.HISTORY).exists()


def test_pretraining_gives_everything_but_the_classifier(tiny, tmp_path, machine):
    before, _ = run(tiny, tmp_path / "before", machine)
    recipe = tiny.changed(pretrained=tiny, dataset="synthetic_objects")
    model = loop.initial_model(recipe, 10, torch.device("cpu"), before.state_dict())
    fresh = loop.initial_model(recipe.changed(pretrained=None), 10, torch.device("cpu"))
    for name, tensor in model.state_dict().items():
        expected = fresh if name.startswith("classifier.") else before
        assert (tensor == expected.state_dict()[name]).all(), name


@pytest.mark.parametrize("term", ["sim", "ce"])
def test_a_broken_loss_names_epoch_step_and_term(tiny, tmp_path, machine, monkeypatch, term):
    original = bridging.step
    calls = []

    def broken(*arguments):
        outcome = original(*arguments)
        calls.append(1)
        if len(calls) == 5:
            value = outcome.terms[term]
            return methods.Step(
                outcome.logits, outcome.terms | {term: value._replace(value=value.value * float("nan"))}
            )
        return outcome

    monkeypatch.setattr(bridging, "step", broken)
    with pytest.raises(TrainingError, match=f"In epoch 2 the loss is no longer finite: step 2, term '{term}'"):
        run(tiny, tmp_path / "run", machine)
    # The first epoch is kept, and without the fault the run goes on from there.
    assert len(pd.read_csv(tmp_path / "run" / checkpoints.HISTORY)) == 1
    monkeypatch.undo()
    assert len(run(tiny, tmp_path / "run", machine)[1]) == 3


def test_a_diverging_run_is_reported_not_scored(tiny, tmp_path, machine):
    with pytest.raises(
        TrainingError,
        match="epoch 1 the network's maps of train-fullsup are no longer finite: NaN",
    ):
        run(tiny.changed(lr_former=1000.0, lr_latter=1000.0, momentum=0.99), tmp_path / "run", machine)


def test_a_damaged_checkpoint_is_named(tiny, tmp_path, machine):
    run(tiny, tmp_path / "run", machine)
    path = tmp_path / "run" / checkpoints.LAST
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is not a checkpoint, or is cut short"):
        checkpoints.load(path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of this kit"):
        checkpoints.load(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        checkpoints.load(tmp_path / "missing.safetensors")


def test_a_checkpoint_of_another_model_is_refused(tiny, tmp_path, machine):
    run(tiny, tmp_path / "run", machine)
    tensors, _ = checkpoints.load(tmp_path / "run" / checkpoints.BEST)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="does not fit Linear"):
        checkpoints.load_into(model, tensors, tmp_path)


def test_writing_a_checkpoint_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, {"x": torch.ones(2)}, {"epoch": 1})
    with pytest.raises(TypeError):
        checkpoints.save(path, {"x": torch.zeros(2)}, {"epoch": object()})
    tensors, header = checkpoints.load(path)
    assert tensors["x"].tolist() == [1, 1]
    assert header == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_nearly_the_same_first_epoch(tiny, tmp_path, machine):
    recipe = tiny.changed(epochs=1, lr_decay_epochs=())
    _, on_cpu = run(recipe, tmp_path / "cpu", machine)
    _, on_gpu = run(recipe, tmp_path / "gpu", Machine(device="cuda"))
    assert on_gpu["loss_total"].tolist() == pytest.approx(on_cpu["loss_total"].tolist(), rel=1e-2)


def test_an_unknown_device_is_explained(tiny, tmp_path):
    with pytest.raises(TrainingError, match="no device 'gpu7'"):
        run(tiny, tmp_path / "run", Machine(device="gpu7"))


def test_normalise_by_hand():
    pixels = np.array([[[[0, 128, 255]]]], np.uint8)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalise(pixels).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_crops_are_windows_of_the_image_some_mirrored(generator):
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
    before = images.copy()
    crops = crop(images, range(len(images)), 9, draw_windows(len(images), images.shape[1] - 9 + 1, generator))
    mirrored = 0
    for found, image in zip(crops, images, strict=True):
        windows = [image[y : y + 9, x : x + 9] for y in range(4) for x in range(4)]
        plain = any((found == window).all() for window in windows)
        flipped = any((found == window[:, ::-1]).all() for window in windows)
        assert plain != flipped
        mirrored += flipped
    assert 8 < mirrored < 32
    assert (images == before).all()


def test_an_epoch_shows_every_image_once(tmp_path):
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 21}))
    batches = list(training_batches(data, 5, 32, epoch_generator(0, 1), "cpu"))
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5]
    even = list(training_batches(data, 7, 32, epoch_generator(0, 1), "cpu"))
    assert sorted(torch.cat([batch.labels for batch in even]).tolist()) == sorted(data.labels.tolist())


def test_all_methods_see_the_same_images(tiny, tmp_path, machine, monkeypatch):
    """Else the rows of a table would differ in more than their losses."""
    seen = []
    original = loop.training_batches

    def recorded(*arguments):
        for batch in original(*arguments):
            seen.append(batch.images.clone())
            yield batch

    monkeypatch.setattr(loop, "training_batches", recorded)
    run(tiny, tmp_path / "with", machine)
    with_dropout = seen.copy()
    seen.clear()
    run(tiny.changed(method="cam", method_options={}), tmp_path / "without", machine)
    assert len(seen) == len(with_dropout) == 9
    assert all((a == b).all() for a, b in zip(seen, with_dropout, strict=True))


def test_image_and_label_stay_together(tmp_path):
    """Reading in the order of the disk must not separate them."""
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 30}), tmp_path)
    looked_up = {normalise(data.images[i : i + 1]).sum().item(): int(data.labels[i]) for i in range(30)}
    for batch in training_batches(data, 8, 32, epoch_generator(1, 2), "cpu"):
        for image, label in zip(batch.images, batch.labels, strict=True):
            nearest = min(looked_up, key=lambda total: abs(total - image.sum().item()))
            assert looked_up[nearest] == label


@pytest.mark.parametrize("index", [3, -1, slice(2, 9, 3), [4, 0, 4], np.array([7, 1]), (5, slice(1, 4), slice(0, 2))])
def test_images_that_are_not_kept_are_indexed_like_an_array(index):
    source = open_dataset("synthetic_birds", "test", 32, {"test": 12})
    kept, decoded = CachedDataset(source), UncachedDataset(source)
    assert np.array_equal(kept.images[index], decoded.images[index])
    assert decoded.images.shape == kept.images.shape
    assert decoded[2].image_id == kept[2].image_id


def test_without_a_cache_a_run_is_the_same_and_nothing_is_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLKIT_CACHE", "off")
    found = [
        RunStore(tmp_path / name, Machine(device="cpu", cache=cache)).get(tiny)
        for name, cache in (("kept", None), ("decoded", folders.cache_or_off()))
    ]
    kept, decoded = ((run.folder / checkpoints.LAST).read_bytes() for run in found)
    assert kept == decoded
    assert not list(tmp_path.glob("**/*.npy"))


def test_epoch_generators_differ_by_seed_and_epoch():
    draws = {epoch_generator(a, b, c).initial_seed() for a in range(5) for b in range(5) for c in range(2)}
    assert len(draws) == 50


def test_run_json_says_what_may_change_the_last_digits(store, tiny, monkeypatch, tmp_path):
    text = (store.get(tiny.changed(cpu_threads=2)).folder / DONE).read_text()
    info = json.loads(text)
    assert info["device"] == "cpu"
    assert info["gpu"] == info["cuda"] == "" or torch.cuda.is_available()
    assert info["threads"] == 2
    assert info["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions["torchvision"] = metadata.version("torchvision")
    assert {name: info[name] for name in versions} == versions
    shown = torch.__config__.show()
    assert all(f"- {library}\n" in shown for library in filter(None, info["libraries"].split("; ")))
    assert ("MKL-DNN v" in info["libraries"]) == ("MKL-DNN v" in shown)
    assert ("Math Kernel Library Version" in info["libraries"]) == ("Math Kernel Library Version" in shown)
    assert info["system"] == platform.platform()
    assert info["cpu"] == machines.cpu_model() != ""


def test_the_processor_is_named_on_every_system(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel\t\t: 1\nmodel name\t: Maker Model 3 @ 2 GHz\n" * 2)
    monkeypatch.setattr(machines, "CPU_INFO", tmp_path / "cpuinfo")
    assert machines.cpu_model() == "Maker Model 3 @ 2 GHz"
    monkeypatch.setattr(machines, "CPU_INFO", tmp_path / "missing")
    assert re.fullmatch(r"[\w.-]+", machines.cpu_model())
