"""What a step costs, counted by hand where that is possible."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import tiny_recipe
from wsolkit import methods
from wsolkit.reproduce import cost


def test_memory_is_that_of_the_tensors_that_exist_at_once():
    """A layer without bias, 864 bytes; its map and that after ReLU, 16384 bytes each."""
    with FakeTensorMode():
        layer, images = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.empty(2, 3, 16, 16)
        memory = cost._Memory(layer.parameters())
        with memory:
            before = layer(images)
            after = before.relu()
            assert memory._now == memory.peak == 864 + 2 * 16384
            loss = after.sum()
            del before  # ReLU needs only what it gave
            assert memory._now == 864 + 16384 + 4
            loss.backward()
            del after, loss
            assert memory._now == 2 * 864
    assert memory.peak == 2 * (864 + 16384 + 4)  # of weights, map and loss, and of their gradients


def operations(call, *given) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        call(*given)
    return counted.get_total_flops()


def test_the_operations_of_a_step_are_those_of_its_passes():
    """A backward pass costs two forward passes, but that nobody needs the gradient of the images."""
    recipe = tiny_recipe(backbone="vgg16")
    with torch.device("meta"):
        model, images = (
            recipe.network(recipe.components.data.extent.classes),
            torch.empty(2, 3, recipe.crop_size, recipe.crop_size),
        )
    output = model(images)
    whole, first = operations(model, images), operations(model.features[0], images)
    vanilla = cost.step_cost(recipe.changed(method="cam", method_options={}), batch_size=2)
    assert vanilla.operations == 3 * whole - first
    dropped = {"lambda_sim": 0.0, "lambda_norm": 0.0, "lambda_drop": 1.0}
    full = cost.step_cost(recipe.changed(method="bridging", method_options=dropped), batch_size=2)
    # The drop loss compares features, without the classifier.
    again = 3 * operations(model.after_drop_point, output.drop_point)
    assert full.operations == vanilla.operations + again


@pytest.mark.parametrize("method", methods.names())
def test_every_method_has_a_cost_and_half_precision_takes_less(method):
    recipe = tiny_recipe(backbone="mini_vgg").changed(method=method, method_options={})
    full, half = (cost.step_cost(recipe, precision) for precision in ("float32", "bf16"))
    assert full.operations == half.operations > 0
    assert 0 < half.memory < full.memory
