import pytest

from tests.conftest import tiny_recipe
from wsolkit.training import checkpoints, run_store, warm_stages
from wsolkit.training.recipes import make_recipe
from wsolkit.training.run_store import RunStore

VANILLA = {"method": "cam", "method_options": {}}


def files(run) -> dict[str, bytes]:
    """Everything of a run that its recipe decides."""
    return {path.name: path.read_bytes() for path in run.folder.iterdir() if path.name not in (run_store.DONE,)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"method_options": {"lambda_sim": 2.0, "tau_fg": 0.5}, "epochs": 4, "lr_decay_epochs": (2, 4)}),
        (VANILLA, {"method_options": {"lambda_drop": 0.0}, "batch_size": 12}),
        ({"method_options": {"lambda_drop": 0.0, "lambda_sim": 1.0}}, VANILLA),
        ({"method": "eil"}, {"method": "eil", "method_options": {"lambda_sim": 1.0, "lambda_norm": 0.5}}),
    ],
    ids=["another alignment", "vanilla first", "vanilla second", "eil"],
)
def test_a_run_that_takes_over_a_warm_stage_ends_as_if_it_had_not(store, tmp_path, first, second):
    common = {"snapshot_epochs": (1, 2, 3), "warm_epochs": 2, "lr_decay_epochs": (2, 3)}
    leaving, taking = tiny_recipe(**common | first), tiny_recipe(**common | second)
    assert leaving.key != taking.key
    store.get(leaving)
    shared = store.get(taking)
    alone = RunStore(tmp_path / "alone", store.machine).get(taking)
    assert shared.info()["epochs_trained"] == taking.epochs - 2
    assert alone.info()["epochs_trained"] == taking.epochs
    assert files(shared) == files(alone)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"method_options": {"lambda_drop": 1.0}},
        {"method_options": {"drop_prob": 0.25}},
        {"warm_batch_size": 12},
        {"lr_latter": 0.02},
        {"warm_epochs": 2},
        {"lr_decay_epochs": (1,)},
        {"method": "eil", "method_options": {}},
        VANILLA,
    ],
    ids=str,
)
def test_recipes_that_begin_otherwise_do_not_share(tiny, change):
    assert tiny.changed(**change).warm_stage() != tiny.warm_stage()


def test_a_stage_of_other_data_or_precision_is_not_taken(store, tiny):
    data = store.get(tiny).info()["data"]
    run = store.root / "new"
    run.mkdir()
    for made in ({"train-weaksup": "something else"}, "float32"), (data, "bf16"):
        warm_stages.begin(run, tiny, warm_stages.folder_of(store.root, tiny, *made))
        assert not checkpoints.begun(run)
    warm_stages.begin(run, tiny, warm_stages.folder_of(store.root, tiny, data))
    assert checkpoints.begun(run)


def test_a_damaged_stage_is_left_alone(store, tiny, tmp_path):
    store.get(tiny)
    (stage,) = (store.root / warm_stages.FOLDER).iterdir()
    content = (stage / checkpoints.LAST).read_bytes()
    (stage / checkpoints.LAST).unlink()
    (stage / checkpoints.LAST).write_bytes(content[:-50])
    again = store.get(tiny.changed(method_options={"lambda_sim": 2.0}))
    assert again.info()["epochs_trained"] == 3
    assert (stage / checkpoints.LAST).read_bytes() == content[:-50]


def test_a_stage_keeps_its_state_while_the_run_goes_on(store, tiny):
    run = store.get(tiny)
    (stage,) = (store.root / warm_stages.FOLDER).iterdir()
    assert len((stage / checkpoints.HISTORY).read_text().splitlines()) == 1 + tiny.warm_epochs
    assert len(run.history()) == tiny.epochs


def test_a_run_that_has_begun_does_not_begin_again(store, tiny):
    last = store.get(tiny).folder / checkpoints.LAST
    before = last.read_bytes()
    (stage,) = (store.root / warm_stages.FOLDER).iterdir()
    warm_stages.begin(store.folder(tiny), tiny, stage)
    assert last.read_bytes() == before


def test_runs_without_a_warm_stage_leave_none(store):
    for warm in (0, 3):
        assert tiny_recipe(warm_epochs=warm).warm_stage() is None
    store.get(tiny_recipe(warm_epochs=0))
    assert not (store.root / warm_stages.FOLDER).exists()


def test_the_papers_sweeps_share_their_beginning():
    """The released schedule of CUB with VGG16: 20 of 70 epochs are warm."""
    base = {"dataset": "cub", "backbone": "vgg16", "method": "bridging", "pretrained": "imagenet"}
    several = [make_recipe(**base, method_options={"lambda_sim": value}) for value in (0.25, 0.5, 0.75)]
    assert len({recipe.warm_stage().key for recipe in several}) == 1
