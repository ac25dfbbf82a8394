import json

import nbformat
import numpy as np
import pytest

from tests.conftest import tiny_recipe
from tests.test_batch_and_cli import write_notebook
from wsolkit import datasets
from wsolkit.errors import RecipeError
from wsolkit.reproduce import notebooks, planning, rehearsal
from wsolkit.reproduce.gallery import PAGE, title_of, write
from wsolkit.system.folders import notebooks_root
from wsolkit.training import profiles
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import DONE

NOTEBOOKS = [path.stem for path in sorted(notebooks_root().glob("*.ipynb"))]


def test_a_plan_names_every_run_once_and_who_wants_it(store):
    smoke = profiles.get("smoke")
    plan = planning.plan(["table1_cub_vgg16", "table7_ablation"], "smoke", {"pretraining": 3})
    vanilla, pretraining = smoke.recipe(losses=(), seed=0, pretraining=3), smoke.recipe(pretraining=3).pretrained
    assert len(plan.recipes) == (6 + 4) * len(smoke.seeds) + 1  # six rows of Table 7, four more of Table 1
    assert next(iter(plan.recipes)) == pretraining
    assert plan.recipes[vanilla] == ["table1_cub_vgg16", "table7_ablation"]
    assert plan.recipes[smoke.recipe(losses=("sim",), seed=1, pretraining=3)] == ["table7_ablation"]
    table = plan.table(store)
    assert set(table["state"]) == {"missing"}
    # 40 + 1 / 3 x 20 images in the one epoch of pretraining, and 20 / 3 for its test.
    assert table.iloc[0]["images"] == round(40 + 40 / 3)
    store.get(pretraining)
    table = plan.table(store)
    assert table.iloc[0][["state", "images"]].tolist() == ["done", 0]
    assert planning.by_kind(table)["left"].sum() == len(table) - 1
    assert [planning.duration(seconds) for seconds in (0, 119, 120, 9000, 7200 * 30)] == [
        *("0 s", "119 s", "2.0 min", "2.5 h", "2.5 days")
    ]
    assert list(planning.by_kind(table)["method"])[:3] == ["vanilla, for pretraining", "vanilla", "ADL"]
    text = planning.totals(table)
    assert f"{len(table)} unique runs: 1 done, 0 begun, {len(table) - 1} missing" in text
    assert f"{table['images'].sum():,} images left" in text


def test_the_time_comes_from_the_speed_that_is_given_or_was_measured_or_else_is_assumed(store):
    plan = planning.plan(["table1_cub_vgg16"], "smoke", {"pretraining": 3})
    (pretraining, first, *_) = plan.recipes
    other = first.dataset
    table = plan.table(store)
    assert set(table["source"]) == {"assumed"}
    assert planning.totals(table).endswith("at assumed speeds (250 images/s; --images-per-second gives another)")
    given = plan.table(store, 50.0)
    assert set(given["source"]) == {"given"}
    assert planning.duration(given["images"].sum() / 50) in planning.totals(given)
    assert f"{planning.duration(given['images'].sum() / 200)} with 4 at once" in planning.totals(given, jobs=4)
    run = store.get(pretraining)
    older = {name: value for name, value in run.info().items() if name != "images_per_second"}
    (run.folder / DONE).write_text(json.dumps(older))
    assert set(plan.table(store)["source"]) == {"assumed"}
    (run.folder / DONE).write_text(json.dumps(older | {"images_per_second": 1234.5}))
    table = plan.table(store).set_index("dataset")
    assert table.loc[pretraining.dataset, "speed"] == 1234.5
    assert set(table.loc[[other], "speed"]) == {planning.ASSUMED_SPEED}
    assert planning.by_kind(plan.table(store)).iloc[0]["images/s"] == round(1234.5)


def test_other_seeds_and_unknown_parameters(store):
    plan = planning.plan(["table5_maps"], "smoke", {"seeds": [7]})
    assert {recipe.seed for recipe in plan.recipes} == {7}
    assert {recipe.pretrained for recipe in plan.recipes} == {"synthetic_objects"}
    with pytest.raises(RecipeError, match="Unknown parameter of table5_maps 'seed'"):
        planning.plan(["table5_maps"], "smoke", {"seed": 7})


def test_every_notebook_of_the_paper_profile_can_be_planned_without_data():
    batch = planning.plan((), "paper").notebooks
    assert sorted(each.notebook.stem for each in batch) == [name for name in NOTEBOOKS if name != "tuning"]
    for each in batch:
        assert each.recipes, (each.notebook.stem, each.problem)
    (tuning,) = planning.plan(["tuning"], "paper").notebooks
    assert tuning.skipped == "Profile 'paper' lists no trials: its methods have their papers' values."


def test_a_notebook_whose_data_set_the_profile_lacks_is_left_out():
    lacking, other = planning.plan(["tableA1_openimages", "table1_cub_vgg16"], "photos").notebooks
    assert "Profile 'photos' has no OpenImages; these have: demo, paper, smoke." in lacking.skipped
    assert (bool(other.recipes), other.skipped) == (True, None)


def test_a_notebook_that_never_comes_to_its_runs_is_given_up(tmp_path, monkeypatch):
    cells = ["from wsolkit.study import open_study", "while True: pass", "open_study('x').train({})"]
    write_notebook(tmp_path / "notebooks", "endless", *cells)
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path))
    monkeypatch.setattr(planning, "PATIENCE", 3.0)
    (endless,) = planning.plan((), "smoke").notebooks
    assert endless.problem == "no answer within 3 s"
    assert endless.parameters is not None


def test_published_sizes_count_in_a_plan():
    recipe = profiles.get("paper").recipe()
    assert planning.images_left(recipe) == round(70 * 5994 + (70 * 1000 + 5794) / 3)
    assert planning.images_left(recipe, 69) == round(5994 + (1000 + 5794) / 3)
    photos = profiles.get("photos").recipe()
    images = photos.components.data.extent.images
    assert images == {
        "train-weaksup": 10 * photos.dataset_options["train_per_class"],
        "train-fullsup": 200,
        "test": 300,
    }
    assert planning.images_left(photos) == round(photos.epochs * (images["train-weaksup"] + 200 / 3) + 300 / 3)


def test_seeds_are_rehearsed_once():
    recipes = [tiny_recipe(seed=seed) for seed in range(3)] + [tiny_recipe(method="cam", method_options={})]
    assert len(rehearsal.distinct(recipes)) == 2


@pytest.mark.parametrize("name", ["cub", "openimages", "tiny_imagenet"])
def test_a_rehearsal_generates_pictures_where_data_are_absent(name):
    changes = {"dataset": name, "dataset_options": {}}
    if name == "openimages":
        changes["select_by"] = "pxap"
    (done,) = rehearsal.rehearse([tiny_recipe(**changes)], Machine(device="cpu"))
    assert (done.failure, done.pictures) == (None, "generated")
    assert rehearsal.describe(done).startswith("ok")


def test_a_rehearsal_takes_real_pictures_where_they_are_and_reports_failures(monkeypatch):
    good, bad = tiny_recipe(), tiny_recipe(dataset="synthetic_objects")
    evaluated = []

    def judge(model, test, *given):
        evaluated.append(len(test))
        if test.name == "synthetic_objects":
            raise RuntimeError("out of memory")

    monkeypatch.setattr(rehearsal, "evaluate", judge)
    first, second = rehearsal.rehearse([good, bad], Machine(device="cpu"), 3)
    assert (first.failure, first.pictures, evaluated) == (None, "real", [3, 3])
    assert second.failure == "RuntimeError: out of memory"
    assert "lambda_sim" in rehearsal.describe(second)


def test_a_rehearsal_finds_damaged_data_and_a_selection_that_cannot_be_judged(tmp_path):
    (tmp_path / "wnids.txt").write_text("")
    damaged = tiny_recipe(dataset="tiny_imagenet", dataset_options={})
    masks = tiny_recipe(dataset="openimages", dataset_options={})
    (first,) = rehearsal.rehearse([damaged], Machine(data_root=tmp_path, device="cpu"))
    (second,) = rehearsal.rehearse([masks], Machine(device="cpu"))
    assert "DataError" in first.failure
    assert "select_by = 'max_box_acc_v2' is not possible" in second.failure


def test_generated_pictures_have_boxes_or_masks():
    plain, masked = (rehearsal.Generated("x", "test", 16, 5, 3, masks) for masks in (False, True))
    assert plain[1].boxes.tolist() == [[4, 4, 12, 12]]
    assert plain[1].mask is None
    assert (len(masked[1].boxes), masked[1].mask.sum()) == (0, 64)
    assert np.array_equal(plain[2].image, plain[2].image)
    assert datasets.find("openimages").extent.masks
    assert not datasets.find("cub").extent.masks


def test_missing_weights_are_found_out_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLKIT_WEIGHTS", str(tmp_path))
    recipe = tiny_recipe(backbone="resnet50", pretrained="imagenet")
    assert rehearsal.weights_at_hand([recipe, tiny_recipe()]) == {"resnet50": None}


def test_the_page_shows_what_is_there_and_names_what_is_not(tmp_path):
    paths = notebooks.find(["table7_ablation", "figA1_threshold"])
    (tmp_path / "table7_ablation.png").write_bytes(b"")
    (tmp_path / "table7_ablation.csv").write_text("row,value\na,1\n")
    (tmp_path / "table7_ablation_summary.csv").write_text("row,mean_pct,paper_pct\nvanilla <b>,12.5,60.74\n")
    page = write(tmp_path, "smoke", paths).read_text()
    assert (tmp_path / PAGE).is_file()
    assert '<img src="table7_ablation.png"' in page
    assert "60.74" in page
    assert "vanilla &lt;b&gt;" in page
    assert "1 of 2" in page
    assert "wsolkit reproduce figA1_threshold --profile smoke" in page
    assert title_of(paths[0]) in page.replace("&#39;", "'")
    (tmp_path / "table7_ablation_broken.csv").write_text("")
    assert "table7_ablation_broken.csv cannot be shown" in write(tmp_path, "smoke", paths).read_text()


def test_the_batch_begins_with_what_is_read_first():
    names = [path.stem for path in notebooks.find()]
    assert names[:2] == ["00_tour", "table7_ablation"]
    assert names[-1] == "claims"
    assert sorted(names) == NOTEBOOKS


def test_every_notebook_asks_for_all_its_runs_at_once():
    """A plan stops where a notebook first asks for runs; what it asked for later would be missing in the plan."""
    for path in notebooks.find():
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        asking = [
            part
            for source in cells
            for part in ("study.train(", "study.train_at(", "study.runs(", "claims.check(")
            if part in source
        ]
        assert len(asking) == 1, path.stem
