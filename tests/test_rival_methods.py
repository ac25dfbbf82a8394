"""The methods that the paper's tables compare with, each on tensors small enough to work out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import tiny_recipe
from wsolkit import maps, methods, models
from wsolkit.methods import acol, adl, calm, cutmix, has, i2c, meil, spg, tap
from wsolkit.training.evaluation import evaluate
from wsolkit.training.loading import epoch_generator, side_by_side, training_batches

RIVALS = ("acol", "adl", "calm", "cutmix", "has", "i2c", "meil", "spg", "tap")

LABELS = torch.tensor([0, 2, 1, 2])


class Given:
    """Draws numbers that a test has chosen."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def for_all(self, count):
        taken, self.numbers = self.numbers[:count], self.numbers[count:]
        return taken


@pytest.fixture
def images():
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def batch_of(images, draw=None):
    draw = draw or methods.Draw(torch.Generator().manual_seed(3), len(images), range(len(images)))
    return methods.Batch(images, LABELS, draw, False, (images.flip(0), LABELS.flip(0)))


def network(name, **options):
    method = methods.find(name, options)
    return method, method.equip(models.build("mini_vgg", 3, seed=1)).train()


def test_has_hides_whole_patches(images):
    draws = torch.tensor([[[0.9, 0.1], [0.5, 0.49]]]).expand(4, 1, 2, 2)
    seen = has.hidden(images, has.Options(patches=2, hide_prob=0.5), lambda shape: draws)
    assert torch.equal(seen[:, :, :32, :32], images[:, :, :32, :32])
    assert (seen[:, :, :32, 32:] == 0).all()
    assert torch.equal(seen[:, :, 32:, :32], images[:, :, 32:, :32])  # 0.5 is not below 0.5
    assert (seen[:, :, 32:, 32:] == 0).all()


def test_adl_hides_the_strongest_cells_or_weighs_all():
    features = torch.tensor([[[[1.0, 4.0], [5.0, 0.0]], [[3.0, 4.0], [5.0, 0.0]]]])  # channel means 2, 4; 5, 0
    assert adl.attention(features, 0.7, True).tolist() == [[[[1.0, 0.0], [0.0, 1.0]]]]
    expected = torch.tensor([[[[2.0, 4.0], [5.0, 0.0]]]]).sigmoid()
    assert torch.equal(adl.attention(features, 0.7, False), expected)


def test_adl_acts_at_three_depths_and_chooses_for_each(images, monkeypatch):
    asked = []
    monkeypatch.setattr(
        adl, "attention", lambda features, threshold, drop: asked.append((features.shape[1:], drop)) or 1
    )
    method, model = network("adl", drop_prob=0.75)
    outcome = method.step(model, batch_of(images, Given(0.7, 0.8, 0.1)))
    assert asked == [((24, 16, 16), True), ((64, 8, 8), False), ((96, 8, 8), True)]
    assert torch.equal(outcome.logits, model(images).logits)


def test_cutmix_mixes_pixels_and_labels_by_area(images):
    assert cutmix.box(0.75, 64, 64, 0.5, 0.25) == (16, 48, 0, 32)
    assert cutmix.box(0.75, 64, 32, 0.0, 0.99) == (0, 16, 23, 32)
    method, model = network("cutmix")
    outcome = method.step(model, batch_of(images, Given(0.0, 0.75, 0.5, 0.25)))
    mixed = images.clone()
    mixed[:, :, 16:48, 0:32] = images.flip(0)[:, :, 16:48, 0:32]
    logits = model(mixed).logits
    expected = 0.75 * F.cross_entropy(logits, LABELS) + 0.25 * F.cross_entropy(logits, LABELS.flip(0))
    torch.testing.assert_close(outcome.total(), expected)
    assert torch.equal(images, images)
    plain = methods.find("cutmix", {"mix_prob": 0.5}).step(model, batch_of(images, Given(0.5, 0.75, 0.5, 0.25)))
    torch.testing.assert_close(plain.total(), F.cross_entropy(model(images).logits, LABELS))


def test_partners_are_the_same_on_one_process_and_on_many(store, tiny):
    data = store.machine.open(tiny, "train-weaksup")

    def batches(rank=0, world=1):
        order, partners = epoch_generator(0, 1), epoch_generator(0, 1, 2)
        return list(training_batches(data, 8, 32, order, "cpu", rank, world, "batch", partners))

    whole, halves = batches(), [batches(rank, 2) for rank in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for each in range(2):
            assert torch.equal(batch.partners[each], torch.cat([part.partners[each] for part in parts]))
        assert torch.equal(batch.partners[1].sort().values, batch.labels.sort().values)
        flat = [image.sum().item() for image in batch.images]
        assert sorted(flat) == sorted(image.sum().item() for image in batch.partners[0])
    assert not all(torch.equal(batch.images, batch.partners[0]) for batch in whole)


def test_images_of_a_class_stand_side_by_side():
    order, labels = np.array([4, 1, 0, 3, 2, 6, 5]), np.array([7, 8, 9, 8, 7, 8, 9])
    assert side_by_side(order, labels).tolist() == [4, 0, 1, 3, 2, 6, 5]


def test_i2c_draws_cells_on_the_object():
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    on_object = torch.tensor([[[False, True], [True, False]]])
    drawn = torch.tensor([[[[0.9, 0.1], [0.2, 0.9]], [[0.9, 0.3], [0.2, 0.9]]]])
    assert i2c.cells(features, on_object, drawn).tolist() == [[[2.0, 6.0], [1.0, 5.0]]]


def test_i2c_finds_the_next_image_of_a_class():
    assert i2c.mates(torch.tensor([5, 3, 5, 4, 5, 3])).tolist() == [2, 5, 4, 3, 0, 1]


def test_i2c_remembers_the_classes():
    memory = i2c.Memory(3, 2)
    memory.update(torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]), torch.tensor([1, 1, -1]))
    assert memory.centres.tolist() == [[0.0, 0.0], [2.0, 3.0], [0.0, 0.0]]  # the first change puts it there
    assert memory.changes.tolist() == [0.0, 1.0, 0.0]
    memory.update(torch.tensor([[4.0, 3.0]]), torch.tensor([1]))
    torch.testing.assert_close(memory.centres[1], torch.tensor([2 + 2 * math.exp(-0.002), 3.0]))


def test_i2cs_gradient_is_that_of_its_pairs(images, monkeypatch):
    """One way for an image and a detached other, as processes need it, is the same as a distance between both."""
    method, model = network("i2c", lambda_stochastic=1.0, lambda_global=0.5)
    model.extra.centres.fill_(0.3)
    model.extra.changes.fill_(1.0)
    monkeypatch.setattr(i2c, "cells", lambda features, on_object, drawn: features.flatten(2).transpose(1, 2)[:, :2])
    outcome = method.step(model, batch_of(images))
    assert list(outcome.terms) == ["ce", "stochastic", "global"]
    sum(outcome.terms[name].value * outcome.terms[name].weight for name in ("stochastic", "global")).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found
    model.zero_grad()
    drawn = model(images).features.flatten(2).transpose(1, 2)[:, :2]
    distance = (drawn[1] - drawn[3]).norm(dim=1).mean()  # images 1 and 3 are of class 2, the others of no other's
    to_centre = (drawn[[1, 3]].mean((0, 1)) - 0.3).norm()
    (distance + 0.5 * to_centre).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, msg=name)


def test_acol_erases_what_the_first_classifier_sees():
    features = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    cam = torch.tensor([[[0.0, 10.0], [6.0, 6.1]]])
    kept = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])  # 10 and 6.1 exceed 0.6 of the range
    assert torch.equal(acol.erased(features, cam, 0.6), features * kept)


def test_acol_localizes_by_the_larger_of_both_maps(images):
    method, model = network("acol")
    model.eval()
    with torch.no_grad():
        logits, found = model.predict(model(images), LABELS)
        output = model(images)
    first = maps.min_max(maps.cam(output.features, model.classifier.weight, LABELS))
    assert torch.equal(logits, output.logits)
    assert (found >= first).all()
    assert (found > first).any()
    assert found.amax((1, 2)).tolist() == [1.0] * 4
    step = method.step(model.train(), batch_of(images))
    assert list(step.terms) == ["ce", "second"]


def test_calm_is_a_probability_of_class_and_cell(images):
    _, model = network("calm")
    model.eval()
    with torch.no_grad():
        found = calm.joint(model, model(images).features)
        logits, at_labels = model.predict(model(images), LABELS)
    torch.testing.assert_close(found.exp().sum((1, 2, 3)), torch.ones(4))
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4))
    torch.testing.assert_close(at_labels.sum((1, 2)), logits.exp()[range(4), LABELS])


def test_calms_map_may_show_all_classes(images):
    _, model = network("calm", map_classes="all")
    with torch.no_grad():
        output = model.eval()(images)
        _, shown = model.predict(output, LABELS)
        attention = F.softplus(model.extra(output.features))[:, 0]
    torch.testing.assert_close(shown, attention / attention.sum((1, 2), keepdim=True))


def test_calms_attention_grows_where_the_label_is_explained():
    """Worked out by hand: the gradient of the attention's logarithm is minus the posterior p(z | x, label) alone."""
    model = SimpleNamespace(classifier=nn.Linear(1, 2, bias=False), extra=nn.Conv2d(1, 1, 1))
    features = torch.tensor([[[[0.0, 2.0]]]])
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor([[1.0], [0.0]]))
        model.extra.weight.zero_()
        model.extra.bias.fill_(1.0)
    said = torch.tensor([0.5, torch.tensor(2.0).sigmoid()])  # p(label | x, z) of both cells; they are attended to alike
    (-calm.joint(model, features)[:, 0].logsumexp((1, 2))).sum().backward()
    slope = torch.tensor(1.0).sigmoid() / F.softplus(torch.tensor(1.0))  # of the logarithm of softplus
    torch.testing.assert_close(model.extra.bias.grad, -slope[None])
    torch.testing.assert_close(model.extra.weight.grad.flatten(), -slope[None] * (2 * said[1] / said.sum()))


def test_spgs_masks_learn_from_seeds_alone():
    guide = torch.tensor([[[0.9, 0.5], [0.04, 0.71]]])
    mask = torch.tensor([[[2.0, -7.0], [1.0, 0.0]]])  # the cell of 0.5 is no seed
    said = [F.softplus(torch.tensor(-2.0)), F.softplus(torch.tensor(1.0)), F.softplus(torch.tensor(0.0))]
    torch.testing.assert_close(spg.guidance_loss(mask, guide, 0.7, 0.05), sum(said) / 3)
    assert spg.guidance_loss(mask, guide, 1.0, 0.0) == 0
    smaller = torch.tensor([[[0.9]]])  # a seed for every cell
    torch.testing.assert_close(spg.guidance_loss(mask, smaller, 0.7, 0.05), F.softplus(-mask).mean())


def test_each_of_spgs_masks_has_its_teacher(images, monkeypatch):
    """The CAM teaches the second stage, that the first, both the last features; no teacher learns from its pupil."""
    method, model = network("spg")
    asked = []
    monkeypatch.setattr(
        spg, "guidance_loss", lambda mask, guide, *bounds: asked.append((mask, guide, bounds)) or mask.sum()
    )
    outcome = method.step(model, batch_of(images))
    assert list(outcome.terms) == ["ce", "second", "first", "last"]
    (second, attention, of_cam), (first, of_second, _), (last, mean, of_mean) = asked
    assert (of_cam, of_mean) == ((0.7, 0.01), (0.7, 0.1))
    assert (attention.amin(), attention.amax()) == (0, 1)
    assert torch.equal(of_second, second.sigmoid())
    smaller = F.interpolate(first.sigmoid()[:, None], second.shape[1:], mode="bilinear")[:, 0]
    torch.testing.assert_close(mean, (smaller + second.sigmoid()) / 2)
    assert not any(guide.requires_grad for _, guide, *_ in asked)
    assert last.shape == attention.shape


def test_meil_erases_at_one_depth_at_a_time(images, monkeypatch):
    asked = []

    def nothing(features, threshold):
        asked.append((tuple(features.shape[1:]), threshold))
        return torch.zeros_like(features[:, :1], dtype=torch.bool)

    method, model = network("meil", erase_threshold=0.6)
    original = meil.attended_cells
    monkeypatch.setattr(meil, "attended_cells", nothing)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    same = method.step(model, batch_of(images)).terms
    assert asked == [((24, 16, 16), 0.6), ((64, 8, 8), 0.6)]
    assert same["ce"].value == same["erased_early"].value == same["erased_late"].value
    statistics = {name: tensor.clone() for name, tensor in model.named_buffers()}
    monkeypatch.setattr(meil, "attended_cells", original)
    model.load_state_dict(before, strict=False)
    other = method.step(model, batch_of(images)).terms
    assert other["ce"].value == same["ce"].value
    assert len({term.value.item() for term in other.values()}) == 3
    for name, tensor in model.named_buffers():  # of the plain pass alone
        assert torch.equal(tensor, statistics[name]), name


def test_tap_averages_the_active_cells_of_a_channel(images):
    features = torch.tensor([[[[10.0, 0.9], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    assert tap.thresholded_average(features, 0.1).tolist() == [[6.5, 0.0]]  # 0.9 is below a tenth of 10
    assert tap.thresholded_average(features, 0.0)[0, 0].item() == pytest.approx(13.9 / 3)
    method, model = network("tap")
    with torch.no_grad():
        output = model.eval()(images)
        logits, found = model.predict(output, LABELS)
        torch.testing.assert_close(logits, model.classifier(tap.thresholded_average(output.features, 0.1)))
        model.classifier.weight.clamp_(min=0)
        expected = maps.pas(maps.cam(output.features, model.classifier.weight, LABELS), 0.9)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        method.step(model, batch_of(images)).logits,
        model.classifier(tap.thresholded_average(model(images).features, 0.1)),
    )


#: Of MiniVGG, whose stages have 24, 64 and 96 channels, and its last features 128.
SPG_HEADS = (24 + 64) * 128 * 9 + 2 * 128 * 128 * 9 + 4 * 128 + 2 * 129 + 128 * 128 * 9 + 128 + 129
HEADS = {"acol": 128 * 128 * 9 * 2 + 128 * 2 + 128 * 3 + 3, "calm": 129, "spg": SPG_HEADS}


@pytest.mark.parametrize(("name", "count"), HEADS.items())
def test_the_heads_of_a_method_are_as_large_as_published(name, count):
    _, model = network(name)
    assert sum(parameter.numel() for parameter in model.extra.parameters()) == count
    groups = model.parameter_groups(0.1, 0.2)
    latter = {id(parameter) for parameter in groups[1]["params"]}
    assert {id(parameter) for parameter in model.extra.parameters()} <= latter


@pytest.mark.parametrize("name", RIVALS)
def test_a_tricks_traces_end_with_the_step(name, images):
    """So many passes of the network a step, and evaluation is that of a network which was never tricked."""
    method, model = network(name)
    passes = []
    model.register_forward_hook(lambda *given: passes.append(1))
    method.step(model, batch_of(images)).total().backward()
    assert len(passes) == (3 if name == "meil" else 1)
    assert all(parameter.grad is not None for parameter in model.parameters())
    fresh = methods.find("cam").equip(models.build("mini_vgg", 3)).eval()
    fresh.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("extra")})
    with torch.no_grad():
        assert torch.equal(model.eval()(images).logits, fresh(images).logits)


@pytest.mark.parametrize("name", RIVALS)
def test_a_run_keeps_the_methods_layers_and_its_way_to_localize(name, store):
    run = store.get(tiny_recipe(method=name, method_options={}))
    model, data = run.model(), store.machine.open(run.recipe, "test")
    again = evaluate(model, data, run.recipe.threshold_step, ("cam", "norm", "similarity"))
    before, after = (each.rates.set_index(["map", "metric"])["value"].to_dict() for each in (run.report(), again))
    for kind in ("cam", "norm", "similarity"):  # rounding may move a pixel over the edge of a histogram's bin
        assert after.pop((kind, "pxap")) == pytest.approx(before.pop((kind, "pxap")), abs=1e-5)
    assert after == pytest.approx(before)
    assert (model.predict is not None) == (name in ("acol", "calm", "tap"))
    assert run.recipe.label.lower() == {"tap": "bae et al."}.get(name, name)
