import dataclasses

import pytest
import torch
import torch.nn.functional as F

from wsolkit import losses, maps, methods, models
from wsolkit.errors import RecipeError

LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def take_step(images, name="bridging", warm=False, seed=3, **options):
    model = models.build("mini_vgg", 3).train()
    generator = torch.Generator().manual_seed(seed)
    method = methods.find(name, options)
    batch = methods.Batch(images, LABELS, methods.Draw(generator, 4, range(4)), warm, (images.flip(0), LABELS.flip(0)))
    return model, method.step(method.equip(model), batch)


def test_without_its_terms_the_papers_method_is_cam(images):
    _, plain = take_step(images, "cam")
    _, off = take_step(images, lambda_sim=0.0, lambda_norm=0.0, lambda_drop=0.0)
    assert list(off.terms) == ["ce"]
    assert off.total() == plain.total()


def test_the_warm_stage_has_no_alignment(images):
    _, warm = take_step(images, warm=True)
    _, main = take_step(images, warm=False)
    assert list(warm.terms) == ["ce", "drop"]
    assert list(main.terms) == ["ce", "drop", "sim", "norm"]


@pytest.mark.parametrize("norm_mask", ["target", "any_class"])
def test_terms_equal_the_loss_functions_on_the_same_features(images, norm_mask):
    options = {"norm_mask": norm_mask, "lambda_drop": 0.0, "tau_fg": 0.5, "tau_bg": 0.3}
    model, outcome = take_step(images, **options)
    features, weight = model(images).features, model.classifier.weight
    similarity = maps.similarity_map(features, weight)
    target = similarity[range(4), LABELS]
    norms = maps.norm_map(features)
    expected = losses.similarity_loss(norms, target, 0.5, 0.3)
    torch.testing.assert_close(outcome.terms["sim"].value, expected, rtol=1e-5, atol=1e-6)
    mask = target if norm_mask == "target" else similarity.amax(1)
    expected = losses.norm_loss(norms, mask, "neither" if norm_mask == "target" else "background")
    torch.testing.assert_close(outcome.terms["norm"].value, expected, rtol=1e-5, atol=1e-6)


def test_the_total_is_the_weighted_sum(images):
    _, outcome = take_step(images, lambda_sim=2.0, lambda_norm=0.5, lambda_drop=4.0)
    value = {name: term.value for name, term in outcome.terms.items()}
    expected = value["ce"] + 4 * value["drop"] + 2 * value["sim"] + 0.5 * value["norm"]
    torch.testing.assert_close(outcome.total(), expected)
    torch.testing.assert_close(value["ce"], F.cross_entropy(outcome.logits, LABELS))


def test_drop_loss_is_zero_when_nothing_is_dropped_and_seeded_otherwise(images):
    _, none = take_step(images, drop_prob=0.0)
    assert none.terms["drop"].value.item() == pytest.approx(0, abs=1e-6)
    first, again, other = (take_step(images, seed=seed)[1].terms["drop"].value.item() for seed in (1, 1, 2))
    assert first == again > 0
    assert first != other


def test_the_second_pass_leaves_running_statistics_alone(images):
    with_drop, _ = take_step(images)
    without, _ = take_step(images, lambda_drop=0.0)
    for (name, buffer), other in zip(with_drop.named_buffers(), without.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)


def test_gradients_are_finite_and_reach_every_parameter(images):
    model, outcome = take_step(images)
    outcome.total().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_are_finite_for_blank_images():
    model, outcome = take_step(torch.zeros(4, 3, 32, 32))
    outcome.total().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_eil_adds_the_cross_entropy_of_features_without_their_strongest_cells(images):
    model, outcome = take_step(images, "eil", erase_threshold=0.95, lambda_erased=0.5)
    pooled = model.pooling(model(images).drop_point)
    level = pooled.mean(1)
    kept = (level <= 0.95 * level.amax((1, 2), keepdim=True))[:, None]
    assert 0 < kept.float().mean() < 1
    logits = model.classifier(model.gap(model.after_pooling(pooled * kept)))
    assert list(outcome.terms) == ["ce", "erased"]
    torch.testing.assert_close(outcome.terms["erased"].value, F.cross_entropy(logits, LABELS), rtol=1e-5, atol=1e-6)
    expected = outcome.terms["ce"].value + 0.5 * outcome.terms["erased"].value
    torch.testing.assert_close(outcome.total(), expected)


def test_eil_takes_the_same_alignment_as_the_papers_method(images):
    weights = {"lambda_sim": 2.0, "lambda_norm": 0.3, "tau_fg": 0.5, "tau_bg": 0.3}
    _, ours = take_step(images, lambda_drop=0.0, **weights)
    _, eil = take_step(images, "eil", **weights)
    assert eil.terms["sim"] == ours.terms["sim"]
    assert eil.terms["norm"] == ours.terms["norm"]
    _, warm = take_step(images, "eil", warm=True, **weights)
    assert list(warm.terms) == ["ce", "erased"]


def test_eil_leaves_running_statistics_to_whole_images(images):
    eil, _ = take_step(images, "eil")
    plain, _ = take_step(images, "cam")
    for (name, buffer), other in zip(eil.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, other), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_simm": 1.0}, "unknown name 'lambda_simm'"),
        ({"tau_fg": 1.5}, r"tau_fg = 1.5: input should be less than or equal to 1"),
        ({"lambda_sim": "2"}, "lambda_sim = '2'"),
        ({"lambda_sim": -1.0}, "lambda_sim = -1.0"),
        ({"norm_mask": "all"}, "norm_mask = 'all'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        methods.find("bridging", options)


def test_unknown_method():
    with pytest.raises(RecipeError, match="Unknown method 'bridgin'. Did you mean 'bridging'"):
        methods.find("bridgin")


def test_options_are_frozen():
    options = methods.find("bridging").options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.lambda_sim = 3.0
