"""That no step mixes devices or waits for one, shown without a GPU: tensors that only know their shape and device."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from wsolkit import maps, methods, models
from wsolkit.training.evaluation import MAP_KINDS

CUDA = torch.device("cuda")
ROOT = Path(__file__).resolve().parent.parent

#: Operators by which Python reads a value from a device, or a shape depends on values: a GPU's queue must run empty.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

OPTIONS = {
    "bridging": [{}, {"norm_mask": "target"}, {"drop_reduction": "sum", "lambda_norm": 0.0}],
    "eil": [{}, {"lambda_sim": 1.0, "lambda_norm": 0.5}],
}

#: In mixed precision the small networks alone: the large ones are made of the same layers, and slow to trace.
PRECISIONS = {None: models.names(), torch.bfloat16: ("mini_vgg", "mini_resnet"), torch.float16: ("mini_vgg",)}

CASES = [
    (name, options, backbone, precision)
    for name in methods.names()
    for options in OPTIONS.get(name, [{}])
    for precision, backbones in PRECISIONS.items()
    for backbone in backbones
]


#: Before, PyTorch asks the driver even for tensors of a GPU that is only pretended.
pretended = pytest.mark.skipif(Version(torch.__version__) < Version("2.10"), reason="needs PyTorch 2.10")


@pytest.fixture(autouse=True)
def autocast_as_on_a_gpu(monkeypatch):
    """Let mixed precision do what it would do on a GPU; it is off where PyTorch finds none."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *arguments: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # which fake tensors do not know


class Given(methods.Draw):
    """Numbers that all images have in common are drawn on the CPU; here they are given, since no tensor has values."""

    def for_all(self, count):
        return [0.3] * count


class Waits(TorchDispatchMode):
    """Counts operators that would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        to_cpu = name == "_to_copy" and (kwargs or {}).get("device") == torch.device("cpu") and args[0].is_cuda
        if name in WAITING or to_cpu:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pretended
@pytest.mark.parametrize(("method", "options", "backbone", "precision"), CASES)
def test_a_step_keeps_to_the_gpu_and_never_waits_for_it(method, options, backbone, precision):
    found = methods.find(method, options)
    with FakeTensorMode():
        with CUDA:
            model = found.equip(models.find(backbone).module.build(5)).train()
            images, labels = torch.rand(4, 3, 64, 64), torch.zeros(4, dtype=torch.long)
        with Waits() as waits, torch.autocast("cuda", precision, enabled=precision is not None):
            for warm in (True, False):
                draw = Given(torch.Generator(), 4, range(4), CUDA)
                step = found.step(model, methods.Batch(images, labels, draw, warm, (images, labels)))
                assert step.total().device.type == "cuda"
                assert step.logits.device.type == "cuda"
                half = precision if method != "calm" else None  # whose logits are logarithms, in full precision
                assert step.logits.dtype == (half or torch.float32)
    assert not waits.found


@pretended
@pytest.mark.parametrize("backbone", models.names())
def test_evaluation_makes_its_maps_where_the_network_is(backbone):
    with FakeTensorMode():
        with CUDA, torch.no_grad():
            model = models.find(backbone).module.build(5).eval()
            output = model(torch.rand(4, 3, 64, 64))
            labels = torch.zeros(4, dtype=torch.long)
        for kind in MAP_KINDS.values():
            assert kind.compute(output.features, model.classifier.weight, labels).device.type == "cuda"


@pretended
def test_a_tensor_left_on_the_cpu_is_noticed(monkeypatch):
    """What the tests above would say of a fault."""
    faulty = maps.norm_map
    monkeypatch.setattr(maps, "norm_map", lambda features: faulty(features) * torch.ones(1, device="cpu").expand(8, 8))
    with pytest.raises(RuntimeError, match="device"):
        test_a_step_keeps_to_the_gpu_and_never_waits_for_it("bridging", {}, "mini_vgg", None)
    monkeypatch.setattr(maps, "norm_map", lambda features: faulty(features) * float(features.sum()))
    with pytest.raises(DataDependentOutputException):
        test_a_step_keeps_to_the_gpu_and_never_waits_for_it("bridging", {}, "mini_vgg", None)


def test_the_gpu_tests_themselves_run():
    """On the CPU instead, which shows nothing but that."""
    chosen = "compiled or workers or maps_and or goes_on or fed"
    chosen += " or (those_of and cutmix and vgg) or (mixed and bridging)"
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", "-k", chosen, "-p", "no:cacheprovider"]
    environment = os.environ | {"WSOLKIT_TEST_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout


def test_training_needs_no_torchvision_for_the_small_vgg():
    """Importing it takes as long as PyTorch itself, in every process."""
    code = "import sys, wsolkit.training.run_store, wsolkit.models.mini_vgg; print('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
