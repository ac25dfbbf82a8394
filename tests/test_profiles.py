import pytest

from wsolkit.errors import RecipeError
from wsolkit.training import profiles
from wsolkit.training.recipes import Recipe

READY = ("smoke", "demo", "photos")


@pytest.mark.parametrize("name", READY)
def test_every_experiment_of_table_7_is_a_recipe_of_its_own(name):
    profile = profiles.get(name)
    rows = [(), ("drop",), ("sim",), ("sim", "norm"), ("drop", "sim"), ("drop", "sim", "norm")]
    recipes = [profile.recipe(losses=losses, seed=seed) for losses in rows for seed in profile.seeds]
    assert len({recipe.key for recipe in recipes}) == len(rows) * len(profile.seeds)
    assert len({recipe.pretrained for recipe in recipes}) == 1
    for losses, recipe in zip(rows, recipes[:: len(profile.seeds)], strict=True):
        weights = {name for name in profiles.LOSSES if recipe.method_options.get(f"lambda_{name}", 0) > 0}
        assert weights == set(losses)
        assert recipe.method == ("bridging" if losses else "cam")
    fields = {(r.dataset, r.epochs, r.lr_former, r.batch_size, r.crop_size) for r in recipes}
    assert len(fields) == 1


def test_fine_grained_data_take_the_mask_over_all_classes():
    demo = profiles.get("demo")
    assert demo.recipe(dataset="CUB").method_options["norm_mask"] == "any_class"
    assert demo.recipe(dataset="ImageNet-1K").method_options["norm_mask"] == "target"


def test_options_can_be_changed_for_a_sweep():
    demo = profiles.get("demo")
    changed = demo.recipe(lambda_sim=4.0)
    assert changed.method_options == demo.recipe().method_options | {"lambda_sim": 4.0}
    assert demo.recipe(losses=("sim",), lambda_sim=4.0).method_options["lambda_drop"] == 0


def test_eil_stands_in_the_place_of_drop():
    demo = profiles.get("demo")
    alone, aligned = demo.recipe(losses=("eil",)), demo.recipe(losses=("eil", "sim", "norm"))
    assert alone.method == aligned.method == "eil"
    assert (alone.method_options["lambda_sim"], alone.method_options["lambda_norm"]) == (0.0, 0.0)
    ours = demo.recipe().method_options
    for name in ("lambda_sim", "lambda_norm", "tau_fg", "tau_bg", "norm_mask"):
        assert aligned.method_options[name] == ours[name]
    assert alone.epochs == demo.recipe(losses=()).epochs
    with pytest.raises(RecipeError, match="'eil' takes the place of 'drop'"):
        demo.recipe(losses=("eil", "drop"))
    published = profiles.get("paper").recipe(losses=("eil",), schedule="eil")
    assert (published.epochs, published.lr_former, published.lr_decay_epochs) == (80, 1e-3, (60,))


def test_snapshots_are_kept_of_the_experiments_and_not_of_sweeps():
    demo = profiles.get("demo")
    assert demo.recipe().snapshot_epochs
    assert demo.recipe(lambda_sim=4.0).snapshot_epochs == ()


def test_runs_start_from_the_published_weights_or_from_a_pretraining_of_ones_own():
    demo = profiles.get("demo")
    assert demo.recipe().pretrained == "synthetic_objects"
    own = demo.recipe(pretraining=2, backbone="ResNet50").pretrained
    assert own == demo.pretraining_recipe("mini_resnet", 2)
    assert (own.seed, own.dataset, own.backbone) == (2, "synthetic_objects", "mini_resnet")
    for name in ("photos", "paper"):
        assert profiles.get(name).recipe().pretrained == "imagenet"
        with pytest.raises(RecipeError, match=f"'{name}' starts from published weights alone: pretraining can only"):
            profiles.get(name).recipe(pretraining=1)
    with pytest.raises(RecipeError, match="seed"):
        demo.recipe(pretraining=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "CUBS"}, "Unknown data set of the paper 'CUBS'. Did you mean 'CUB'"),
        ({"backbone": "VGG19"}, "Unknown backbone of the paper 'VGG19'. Did you mean 'VGG16'"),
        ({"losses": ("simm",)}, "Unknown loss term 'simm'"),
        ({"lambda_sims": 1.0}, "unknown name 'lambda_sims'"),
    ],
)
def test_unknown_words_are_refused(arguments, message):
    with pytest.raises(RecipeError, match=message):
        profiles.get("demo").recipe(**arguments)


def test_the_paper_profile_takes_the_published_values():
    profile = profiles.get("paper")
    recipe = profile.recipe(dataset="CUB", losses=("sim", "norm"))
    assert (recipe.backbone, recipe.pretrained) == ("vgg16", "imagenet")
    assert (recipe.epochs, recipe.warm_epochs, recipe.batch_size, recipe.warm_batch_size) == (70, 20, 64, 32)
    assert (recipe.lr_former, recipe.lr_latter, recipe.crop_size, recipe.resize_size) == (4e-3, 2e-2, 224, 256)
    options = recipe.method_options
    assert (options["lambda_sim"], options["lambda_norm"], options["lambda_drop"]) == (0.5, 0.15, 0.0)
    assert (options["tau_fg"], options["tau_bg"], options["norm_mask"]) == (0.6, 0.1, "any_class")
    assert not recipe.nesterov
    assert profile.recipe(source="released").nesterov
    images = profile.recipe(dataset="ImageNet-1K")
    assert (images.epochs, images.method_options["norm_mask"]) == (40, "target")
    masks = profile.recipe(dataset="OpenImages")
    assert (masks.epochs, masks.select_by) == (40, "pxap")
    assert profile.recipe().snapshot_epochs == (20, 45, 70)
    residual = profile.recipe(backbone="ResNet50")
    assert (residual.backbone, residual.batch_size, residual.latter_part) == ("resnet50", 32, "last_layers")
    assert profile.recipe(backbone="ResNet50", source="released").latter_part == "classifier"


def test_unknown_profile():
    with pytest.raises(RecipeError, match="Unknown profile 'dem'. Did you mean 'demo'"):
        profiles.get("dem")


def test_recipes_of_a_profile_survive_json():
    recipe = profiles.get("demo").recipe()
    assert Recipe.from_json(recipe.to_json()) == recipe
