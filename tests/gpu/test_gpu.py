"""The same numbers on a GPU as on the CPU, in full and mixed precision, alone and shared; and what a step costs there.

Run: make test-gpu
"""

import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_recipe
from tests.gpu.conftest import DEVICE
from wsolkit import maps, methods, models
from wsolkit.metrics import BoxMeter, PixelMeter
from wsolkit.reproduce import begin_processes
from wsolkit.reproduce.cost import step_cost
from wsolkit.training import checkpoints, loop
from wsolkit.training.engine import Engine, Stepper, optimise, totals
from wsolkit.training.evaluation import MAP_KINDS, evaluate
from wsolkit.training.loading import Loaded, epoch_generator, training_batches
from wsolkit.training.machine import Machine
from wsolkit.training.profiles import get
from wsolkit.training.run_store import RunStore

CPU = torch.device("cpu")

#: Of numbers about 1, after the sums of a network in single precision.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}

#: Of losses in half precision, whose numbers have three digits (bf16: two).
HALF_CLOSE = {"rtol": 0.1, "atol": 0.05}


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.detach().cpu().double() - second.detach().cpu().double()).abs().max())


def one_step(method: str, backbone: str, device: torch.device, precision: str = "float32") -> dict[str, torch.Tensor]:
    """Losses, logits and gradients of one step on the same images, from the same weights."""
    found = methods.find(method)
    model = found.equip(models.build(backbone, 5, 0)).train().to(device, memory_format=torch.channels_last)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 3])
    draw = methods.Draw(torch.Generator().manual_seed(2), 4, range(4), device)
    images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
    engine = Engine(device, precision)
    with engine.autocast:
        step = found.step(model, methods.Batch(images, labels, draw, partners=(images.flip(0), labels.flip(0))))
    step.total().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    terms = {f"loss {name}": term.value for name, term in step.terms.items()}
    return terms | {"logits": step.logits, "gradient": torch.cat([each.flatten() for each in gradients.values()])}


@pytest.mark.parametrize("backbone", ["mini_vgg", "mini_resnet"])
@pytest.mark.parametrize("method", methods.names())
def test_losses_logits_and_gradients_are_those_of_the_cpu(method, backbone, measured):
    here, there = one_step(method, backbone, CPU), one_step(method, backbone, DEVICE)
    assert here.keys() == there.keys()
    measured[f"step, {method}, {backbone}"] = {name: difference(here[name], there[name]) for name in here}
    for name, tensor in here.items():
        torch.testing.assert_close(there[name].cpu(), tensor, **CLOSE, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", methods.names())
def test_mixed_precision_is_close_and_its_gradients_are_finite(method, precision, measured):
    full, half = one_step(method, "mini_vgg", DEVICE), one_step(method, "mini_vgg", DEVICE, precision)
    losses = [name for name in full if name.startswith("loss")]
    measured[f"{precision}, {method}"] = {name: difference(full[name], half[name]) for name in losses}
    assert torch.isfinite(half["gradient"]).all()
    for name in losses:
        torch.testing.assert_close(half[name].float(), full[name].float(), **HALF_CLOSE)


def test_maps_and_meters_take_what_lies_on_the_gpu(measured):
    generator = torch.Generator().manual_seed(3)
    features, weight = torch.rand(6, 32, 14, 14, generator=generator), torch.randn(5, 32, generator=generator)
    target, boxes = torch.tensor([0, 1, 2, 3, 4, 0]), [np.array([[10, 20, 150, 180]])] * 6
    for name, kind in MAP_KINDS.items():
        rates, scores = [], []
        for device in (CPU, DEVICE):
            raw = kind.compute(*(each.to(device) for each in (features, weight, target)))
            scores.append(maps.score_map(raw, 224, kind.normalisation))
            meter, pixels = BoxMeter(), PixelMeter()
            meter.update(scores[-1], boxes)
            pixels.update(scores[-1], scores[0] > 0.5)
            rates.append((meter.compute()["max_box_acc_v2"], pixels.compute()["pxap"]))
        measured[f"score map, {name}"] = difference(*scores)
        torch.testing.assert_close(scores[1].cpu(), scores[0], rtol=0, atol=1e-5)
        assert rates[0] == pytest.approx(rates[1], abs=0.01)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """One recipe, trained on the CPU and on the device."""
    recipe = get("smoke").recipe()
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name, device in (("cpu", CPU), ("gpu", DEVICE)):
        store = RunStore(folder / name, Machine(device=str(device), cache=folder / "cache"))
        found[name] = store, store.get(recipe)
    return recipe, found


def test_a_run_learns_the_same(runs, measured):
    """Runs drift apart, since rounding is chance; not within two epochs."""
    _, found = runs
    here, there = (run.history() for _, run in found.values())
    losses = [name for name in here if name.startswith("loss")]
    measured["run"] = (here[losses] - there[losses]).abs().max().to_dict()
    pd.testing.assert_frame_equal(here[losses], there[losses], rtol=0.02, atol=0.02)
    assert found["gpu"][1].info()["device"] == str(DEVICE)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(runs, tmp_path):
    recipe, found = runs
    store, run = found["gpu"]
    asked = []

    def stop() -> bool:
        asked.append(len(asked))
        return len(asked) > 3  # in the second epoch

    (tmp_path / "run").mkdir()
    with pytest.raises(loop.Stopped):
        loop.train(recipe, tmp_path / "run", store.machine, should_stop=stop)
    loop.train(recipe, tmp_path / "run", store.machine)
    weights, expected = (checkpoints.load(folder / checkpoints.BEST)[0] for folder in (tmp_path / "run", run.folder))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-3)  # cuDNN adds in no fixed order


def test_evaluation_gives_the_same_rates(runs, measured):
    recipe, found = runs
    store, run = found["cpu"]
    data = store.machine.open(recipe, "test")
    here, there = (evaluate(run.model().to(device), data, 0.01, tuple(MAP_KINDS)).rates for device in (CPU, DEVICE))
    measured["evaluation"] = float((here["value"] - there["value"]).abs().max())
    judged = here["metric"].str.contains("loc|acc|cls")
    assert (here["value"] - there["value"])[judged].abs().max() <= 1 / len(data) + 1e-9  # one image at most


def test_two_processes_share_the_gpu(runs, tmp_path):
    """Through gloo, because NCCL wants a GPU for each; as on two GPUs, batch normalisation sees the whole batch."""
    recipe, found = runs
    store, run = found["gpu"]
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "wsolkit", "train"]
    folders = {"WSOLKIT_RUNS": str(tmp_path / "together"), "WSOLKIT_CACHE": str(store.machine.cache)}
    result = subprocess.run(
        [sys.executable, *command, str(tmp_path / "recipe.json"), "--device", DEVICE.type],
        env=os.environ | folders | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    together = RunStore(tmp_path / "together", store.machine).find(recipe)
    assert together.info()["processes"] == 2
    if DEVICE.type == "cuda":
        loss = "loss_total"
        pd.testing.assert_series_equal(together.history()[loss], run.history()[loss], rtol=0.02, atol=0.02)


def test_workers_train_on_the_gpu(tmp_path):
    """They are forked from a process that has imported all that a batch needs; it must not have touched the GPU."""
    begin_processes()
    store = RunStore(tmp_path / "runs", Machine(device=str(DEVICE), cache=tmp_path / "cache"))
    runs = store.get_all([tiny_recipe(seed=seed) for seed in range(2)], jobs=2)
    assert [run.info()["device"] for run in runs] == [str(DEVICE)] * 2


def test_a_compiled_step_changes_nothing_but_rounding(tmp_path, measured):
    recipe = tiny_recipe()
    histories = []
    for compiled in (False, True):
        machine = Machine(device=str(DEVICE), cache=tmp_path / "cache", compiled=compiled)
        histories.append(RunStore(tmp_path / str(compiled), machine).get(recipe).history())
    losses = [name for name in histories[0] if name.startswith("loss")]
    measured["compiled"] = (histories[0][losses] - histories[1][losses]).abs().max().to_dict()
    pd.testing.assert_frame_equal(histories[0][losses], histories[1][losses], rtol=0.01, atol=0.01)


class Trainer:
    """Takes steps of a paper's recipe on one fixed batch."""

    def __init__(self, recipe, precision: str):
        self.recipe, self.engine = recipe, Engine(DEVICE, precision)
        self.model = loop.initial_model(recipe.changed(pretrained=None), 200, DEVICE).train()
        self.optimizer = loop.make_optimizer(recipe, self.model)
        self.stepper = Stepper(self.model, recipe.components.method.step)
        side, count = recipe.crop_size, recipe.batch_size
        images = torch.randn(count, 3, side, side, device=DEVICE).to(memory_format=torch.channels_last)
        self.batch = Loaded(images, torch.arange(count, device=DEVICE) % 200, range(count), count)

    def seconds(self, steps: int = 5) -> float:
        """The mean time of a step."""
        randomness = epoch_generator(0, 1)
        start = time.perf_counter()
        taken = [optimise(self.engine, self.stepper, self.optimizer, self.batch, randomness) for _ in range(steps)]
        totals(self.engine, taken)  # waits for the last
        return (time.perf_counter() - start) / steps


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("backbone", ["VGG16", "ResNet50"])
def test_speed_and_memory_of_the_papers_steps(backbone, precision, measured):
    """Both methods take turns; the report has their ratio beside that of their operations. Slow means nothing here."""
    if DEVICE.type != "cuda":
        pytest.skip("the paper's batches are for a GPU")
    report = {}
    trainers = {}
    for name, losses in (("vanilla", ()), ("ours", ("drop", "sim", "norm"))):
        recipe = get("paper").recipe("CUB", backbone, losses)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        trainers[name] = Trainer(recipe, precision)
        trainers[name].seconds(2)
        counted = step_cost(recipe, precision)
        used = torch.cuda.max_memory_allocated() - before
        report |= {f"{name}, GB": used / 1e9, f"{name}, GB counted": counted.memory / 1e9}
        report |= {f"{name}, TFLOP a step": counted.operations / 1e12}
        assert used > 0.5 * counted.memory
    rounds = [[trainer.seconds() for trainer in trainers.values()] for _ in range(6)][1:]
    for number, (name, trainer) in enumerate(trainers.items()):
        seconds = statistics.median(row[number] for row in rounds)
        report |= {f"{name}, images/s": trainer.recipe.batch_size / seconds}
        report |= {f"{name}, TFLOP/s": report[f"{name}, TFLOP a step"] / seconds}
    report["ours over vanilla, time"] = statistics.median(ours / vanilla for vanilla, ours in rounds)
    report["ours over vanilla, operations"] = report["ours, TFLOP a step"] / report["vanilla, TFLOP a step"]
    measured[f"{backbone}, {precision}"] = report


def test_images_are_fed_to_the_gpu(tmp_path, measured):
    """The report has how many a second are cropped, copied and normalised, in batches of 32 at 224 pixels."""
    recipe = get("smoke").recipe().changed(resize_size=256, crop_size=224)
    data = Machine(device="cpu", cache=tmp_path).open(recipe, "train-weaksup")
    start, images = time.perf_counter(), 0
    for epoch in range(1, 6):
        for batch in training_batches(data, 32, 224, epoch_generator(0, epoch), DEVICE):
            images += batch.size
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    measured["feeding, images/s"] = images / (time.perf_counter() - start)
    assert images == 5 * 40
