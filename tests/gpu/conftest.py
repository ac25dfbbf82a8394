"""Where the GPU tests run, and the one file that they leave behind."""

import json
import os
import platform
from pathlib import Path

import pytest
import torch

#: The device under test. Another one than a GPU shows that the tests themselves run, and nothing else.
DEVICE = torch.device(os.environ.get("WSOLKIT_TEST_DEVICE", "cuda"))

HERE = Path(__file__).parent
REPORT = "gpu_report.json"


def pytest_collection_modifyitems(items):
    """Skip all tests of this folder where there is no GPU."""
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        reason = "no GPU that PyTorch can use; `make test-gpu` is for a machine that has one"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def measured():
    """What the tests measure, by name; written to gpu_report.json in the current folder at the end."""
    found: dict[str, object] = {"torch": torch.__version__, "python": platform.python_version(), "device": str(DEVICE)}
    if DEVICE.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(DEVICE),
            "gpu_gb": torch.cuda.get_device_properties(DEVICE).total_memory / 1e9,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    yield found
    if DEVICE.type == "cuda":
        Path(REPORT).write_text(json.dumps(found, indent=2) + "\n")
        print(f"\n{Path(REPORT).resolve()}")


@pytest.fixture(autouse=True)
def exact():
    """Single precision as the CPU has it: TF32 keeps ten bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
