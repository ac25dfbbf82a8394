"""One run on several processes, in mixed precision, in parts: the same training."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.conftest import tiny_recipe
from wsolkit import maps, methods, models
from wsolkit.errors import TrainingError
from wsolkit.methods import Step
from wsolkit.methods._base import Term
from wsolkit.training import checkpoints, engine, loop, run_store
from wsolkit.training.engine import Engine, Stepper
from wsolkit.training.loading import BATCHES, METHOD, epoch_generator, share, training_batches
from wsolkit.training.run_store import RunStore

WITHOUT_BATCH_NORM = {
    "backbone": "vgg16",
    "dataset_options": {"train_weaksup": 24, "train_fullsup": 4, "test": 4},
    "epochs": 1,
    "warm_epochs": 0,
    "lr_decay_epochs": (),
    "lr_former": 0.001,
    "lr_latter": 0.005,
}
"""Three steps of eight images; batch normalisation would see other batches where they are shared out on CPUs."""


def test_shares_are_nearly_equal_and_whole():
    for total in (1, 7, 8, 33):
        shares = [share(range(5, 5 + total), number, 4) for number in range(4)]
        assert [image for each in shares for image in each] == list(range(5, 5 + total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_draw_what_the_whole_would():
    whole, first, second = (torch.Generator().manual_seed(3) for _ in range(3))
    draws = methods.Draw(first, 6, range(2)), methods.Draw(second, 6, range(2, 6))
    for shape in (1, 2, 2), (3,):  # the second drawing of a step is another one
        parts = [draw((images, *shape)) for draw, images in zip(draws, (2, 4), strict=True)]
        assert torch.equal(torch.cat(parts), torch.rand((6, *shape), generator=whole))
    assert draws[0].for_all(3) == draws[1].for_all(3)


def test_processes_share_the_very_same_batches(store, tiny):
    data = store.machine.open(tiny, "train-weaksup")
    whole = list(training_batches(data, 8, 32, epoch_generator(0, 1), "cpu"))
    halves = [list(training_batches(data, 8, 32, epoch_generator(0, 1), "cpu", rank, 2)) for rank in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
        assert torch.equal(batch.labels, torch.cat([part.labels for part in parts]))
        assert [image for part in parts for image in part.mine] == list(batch.mine) == list(range(batch.size))


def three_steps(recipe, machine, parts: int) -> tuple[models.GapClassifier, list[dict]]:
    data = machine.open(recipe, "train-weaksup")
    model = models.build(recipe.backbone, len(data.classes), 0).train().double()
    optimizer, alone = loop.make_optimizer(recipe, model), Engine(torch.device("cpu"))
    stepper = Stepper(model, recipe.components.method.step)
    order, randomness = (epoch_generator(0, 1, stream) for stream in (BATCHES, METHOD))
    taken = []
    for batch in training_batches(data, 8, 32, order, "cpu"):
        batch = replace(batch, images=batch.images.double())
        taken.append(engine.totals(alone, [engine.optimise(alone, stepper, optimizer, batch, randomness, parts=parts)]))
    return model, taken


def test_parts_of_a_batch_add_up_to_the_whole(machine):
    """In double precision, so that nothing but the last digits may differ; twenty parts of eight images are eight."""
    sizes = {"train_weaksup": 16, "train_fullsup": 4, "test": 4}
    recipe = tiny_recipe(**WITHOUT_BATCH_NORM | {"dataset_options": sizes})
    right, (whole, steps) = "train_top1_cls", three_steps(recipe, machine, 1)
    for parts in (3, 20):
        split, split_steps = three_steps(recipe, machine, parts)
        for name, tensor in split.state_dict().items():
            assert torch.allclose(tensor, whole.state_dict()[name], rtol=0, atol=1e-10), name
        for one, other in zip(steps, split_steps, strict=True):
            assert other[engine.IMAGES] == one[engine.IMAGES] == 8
            assert other[right] == pytest.approx(one[right], abs=1e-6)  # shares in float32
            assert other | {right: 0.0} == pytest.approx(one | {right: 0.0}, abs=1e-10)


#: Trains recipes one after the other, as the shell does each; processes that start once take half a minute less.
TRAIN_EACH = """
import sys
from wsolkit.cli import app
for recipe in sys.argv[1:]:
    app(["train", recipe, "--device", "cpu", "--track", "tensorboard"], standalone_mode=False)
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(store, tmp_path):
    """Also where a method looks beyond the images of its process."""
    recipes = [tiny_recipe(**WITHOUT_BATCH_NORM, method=method) for method in ("bridging", "cutmix", "i2c")]
    files = [tmp_path / f"{recipe.method}.json" for recipe in recipes]
    for file, recipe in zip(files, recipes, strict=True):
        file.write_text(recipe.to_json())
    (tmp_path / "train_each.py").write_text(TRAIN_EACH)
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "train_each.py"]
    folders = {"WSOLKIT_RUNS": str(tmp_path / "together"), "WSOLKIT_CACHE": str(store.machine.cache)}
    result = subprocess.run(
        [sys.executable, *command, *files],
        env=os.environ | folders | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    pairs = [(RunStore(tmp_path / "together", store.machine).find(recipe), store.get(recipe)) for recipe in recipes]
    for together, alone in pairs:
        require_the_same(together, alone)
    assert result.stdout.split() == [str(together.folder) for together, _ in pairs]


def require_the_same(together, alone) -> None:
    assert together.info()["processes"] == 2
    assert list((together.folder / "tensorboard").iterdir())
    assert alone.info()["processes"] == 1
    ours, theirs = (checkpoints.load(run.folder / checkpoints.LAST)[0] for run in (together, alone))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=0, atol=1e-5), name
    histories = [run.history().drop(columns=["stage"]) for run in (together, alone)]
    # a pixel whose score crosses the edge of a histogram's bin moves pxAP by more than rounding does
    precision = [history.pop("fullsup_pxap") for history in histories]
    pd.testing.assert_series_equal(*precision, rtol=0, atol=3e-4)
    pd.testing.assert_frame_equal(*histories, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_says_so(tiny, machine, tmp_path, precision):
    mixed = replace(machine, precision=precision)
    run = RunStore(tmp_path / "mixed", mixed).get(tiny)
    full = RunStore(tmp_path / "full", machine).get(tiny)
    assert run.info()["precision"] == precision
    weights = checkpoints.load(run.folder / checkpoints.BEST)[0]
    assert {tensor.dtype for name, tensor in weights.items() if "num_batches" not in name} == {torch.float32}
    close = run.history()["loss_total"] - full.history()["loss_total"]
    assert 0 < close.abs().max() < 0.1  # other numbers, the same training


def test_the_scale_of_the_loss_is_kept_with_the_rest(tiny, machine, tmp_path):
    begun = Engine(torch.device("cpu"), "fp16")
    loop.train(tiny, tmp_path, machine, engine=begun, on_epoch=lambda epoch: begun._scaler.update(512.0 / 2**epoch))
    later = Engine(torch.device("cpu"), "fp16")
    loop.train(tiny, tmp_path, machine, engine=later)
    # What an epoch changes after it was kept is not in it.
    assert later.state()["scale"] == 512.0 / 2 ** (tiny.epochs - 1)
    assert Engine(torch.device("cpu")).state() == {}


def test_other_processes_wait_until_the_main_one_has_put_a_warm_stage_in_place(store, tiny, monkeypatch):
    """Else they would begin at another epoch than the main one does."""
    calls = []
    monkeypatch.setattr(store.engine, "rank", 1)
    monkeypatch.setattr(store.engine, "wait", lambda: calls.append("wait"))
    monkeypatch.setattr(run_store, "train", lambda *given: calls.append("train"))
    store._train(tiny, None, lambda: False)
    assert calls == ["wait", "train"]
    assert not list(store.root.glob(f"*/{run_store.DONE}"))


def test_a_recipe_does_not_know_how_it_is_trained(tiny):
    assert {"precision", "parts", "processes"}.isdisjoint(json.loads(tiny.to_json()))


def test_the_first_step_whose_loss_breaks_is_named(store, tiny, monkeypatch):
    """Steps are looked at together, the broken one in the second look; the epochs before it stay."""
    bridging = methods.find("bridging").module
    true_step, calls = bridging.step, []

    def broken(model, batch, options):
        outcome = true_step(model, batch, options)
        calls.append(len(batch.images))
        if len(calls) == 9:
            term = outcome.terms["sim"]
            outcome.terms["sim"] = term._replace(value=term.value * float("nan"))
        return outcome

    monkeypatch.setattr(bridging, "step", broken)
    monkeypatch.setattr(loop, "LOOK_EVERY", 2)
    store = RunStore(store.root, replace(store.machine, parts=2))
    with pytest.raises(TrainingError, match="In epoch 2 the loss is no longer finite: step 2, term 'sim'. Lower"):
        store.get(tiny)
    assert store.finished_epochs(tiny) == 1


WAITING = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "__bool__", "__float__", "__int__"}


class Waits(TorchFunctionMode):
    """Counts the calls that a GPU would have to be waited for, boolean indices among them."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        indices = args[1] if name in ("__getitem__", "__setitem__") else ()
        masked = any(
            getattr(each, "dtype", None) == torch.bool
            for each in (indices if isinstance(indices, tuple) else (indices,))
        )
        if name in WAITING or masked:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", methods.names())
def test_a_whole_step_waits_for_no_device(machine, tiny, method, monkeypatch):
    """Forward, backward and update; the totals at the end wait once, however many steps were taken."""
    monkeypatch.setattr(methods.Draw, "for_all", lambda draw, count: [0.3] * count)  # drawn on the CPU in any case
    monkeypatch.setattr(maps, "_rows", lambda features, weight, target: weight[target])  # looks at labels on a CPU only
    recipe = tiny.changed(method=method, method_options={})
    data = machine.open(recipe, "train-weaksup")
    model = loop.initial_model(recipe, len(data.classes), "cpu").train()
    optimizer, alone = loop.make_optimizer(recipe, model), Engine(torch.device("cpu"))
    batches, randomness = loop.epoch_batches(recipe, 3, data, alone)
    stepper, given = Stepper(model, recipe.components.method.step), list(batches)
    with Waits() as waits:
        taken = [engine.optimise(alone, stepper, optimizer, batch, randomness) for batch in given]
        assert not waits.found
        engine.totals(alone, taken)
    assert len(taken) > 1
    assert waits.found["cpu"] == 1


def test_more_processes_than_images_in_a_batch_are_refused(tiny, machine, tmp_path):
    many = Engine(torch.device("cpu"))
    many.world = 9
    with pytest.raises(TrainingError, match="9 processes cannot share batches of 8 images"):
        loop.train(tiny, tmp_path, machine, engine=many)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda outcome: outcome.logits, "returned a Tensor; expected a Step"),
        (lambda outcome: Step(outcome.logits, {"ce": Term(outcome.logits)}), r"loss term 'ce' .* shape \(2, 3\)"),
    ],
)
def test_a_method_that_gives_something_else_is_told_so(gives, said):
    model = models.build("mini_vgg", 3)
    take = methods.find("cam").step
    stepper = Stepper(model, lambda *given: gives(take(*given)))
    with pytest.raises(TrainingError, match=said):
        stepper(methods.Batch(torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), torch.rand))
