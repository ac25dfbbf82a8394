"""Imported once for all processes of a batch: what they need to plan notebooks, to execute them and to train.

What cannot be imported is left to where it is used: a torchvision that does not fit PyTorch, for example.
"""

from contextlib import suppress
from importlib import import_module

for _name in ("wsolkit.study.claims", "wsolkit.study.explorer", "wsolkit.reproduce.runner", "torchvision"):
    with suppress(Exception):
        import_module(_name)
