"""Images a second of a training step: the vanilla method, and the paper's method with all its losses.

Prints, for each backbone, both speeds, their ratio, and the ratio that the operation counts predict: the layers after
the drop point run twice, everything else once. The methods take turns, so that a noisy machine disturbs all alike.
With ``--options`` it compares, for the full method, the ways to run it instead: memory layout, fused SGD, compilation.

Run: python tests/benchmarks/training_step.py [backbone ...] [--threads N] [--rounds N]
"""

import argparse
import statistics
import time

import torch
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode

from wsolkit import methods, models
from wsolkit.training.engine import Engine, Stepper, optimise
from wsolkit.training.loading import Loaded

SIZES = {"mini_vgg": (64, 32), "mini_resnet": (64, 32), "vgg16": (224, 4), "resnet50": (224, 4)}
"""Side of the images in pixels and images a step."""

METHODS = ("cam", "bridging")
OPTIONS = {
    "channels last": {},
    "contiguous": {"contiguous": True},
    "fused SGD": {"fused": True},
    "compiled": {"compiled": True},
}
"""Ways to run the same training; the first is the kit's."""

STEPS = 8


def predicted_ratio(model: models.GapClassifier, images: torch.Tensor) -> float:
    """Operations of a full step over those of a vanilla step."""
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        output = model(images)
    with torch.no_grad(), FlopCounterMode(display=False) as tail:
        model.after_drop_point(output.drop_point)
    return 1 + tail.get_total_flops() / whole.get_total_flops()


class Trainer:
    """Takes training steps on one fixed batch."""

    def __init__(self, backbone: str, method: str, images: torch.Tensor, labels: torch.Tensor, **options: bool):
        """Build the network and its optimizer; options are those of :data:`OPTIONS`."""
        layout = torch.contiguous_format if options.get("contiguous") else torch.channels_last
        self.model = models.build(backbone, 10).to(memory_format=layout).train()
        groups = self.model.parameter_groups(1e-3, 1e-3)
        self.optimizer = SGD(groups, momentum=0.9, weight_decay=5e-4, fused=options.get("fused") or None)
        step = methods.find(method).step
        self.stepper = Stepper(self.model, torch.compile(step) if options.get("compiled") else step)
        self.batch = Loaded(images.contiguous(memory_format=layout), labels, range(len(labels)), len(labels))
        self.generator = torch.Generator().manual_seed(0)
        self.engine = Engine(images.device)

    def images_per_second(self) -> float:
        """Speed of a few steps of the main stage."""
        start = time.perf_counter()
        for _ in range(STEPS):
            optimise(self.engine, self.stepper, self.optimizer, self.batch, self.generator)
        return STEPS * self.batch.size / (time.perf_counter() - start)


def measure(backbone: str, rounds: int) -> None:
    """Print one line for one backbone."""
    size, batch = SIZES[backbone]
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    trainers = [Trainer(backbone, method, images, labels) for method in METHODS]
    speeds = [[trainer.images_per_second() for trainer in trainers] for _ in range(rounds + 1)][1:]
    vanilla, full = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(a / b for a, b in speeds)
    predicted = predicted_ratio(trainers[0].model, images)
    print(
        f"{backbone:10} {size:4} px  vanilla {vanilla:7.1f} images/s  all losses {full:7.1f} images/s  "
        f"ratio {ratio:.2f}  predicted {predicted:.2f}"
    )


def compare(backbone: str, rounds: int) -> None:
    """Print a line for each way to run the full method."""
    size, batch = SIZES[backbone]
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % 10
    trainers = {name: Trainer(backbone, "bridging", images, labels, **chosen) for name, chosen in OPTIONS.items()}
    for trainer in trainers.values():
        trainer.images_per_second()
    speeds = [[trainer.images_per_second() for trainer in trainers.values()] for _ in range(rounds)]
    for number, name in enumerate(trainers):
        ratio = statistics.median(row[number] / row[0] for row in speeds)
        speed = statistics.median(row[number] for row in speeds)
        print(f"{backbone:10} {name:22} {speed:7.1f} images/s  {ratio:.2f} of the first")


def main() -> None:
    """Measure the backbones named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbones", nargs="*", default=["mini_vgg"], metavar="backbone", help=", ".join(SIZES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--options", action="store_true", help="compare ways to run the full method")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, median of {arguments.rounds} rounds of {STEPS} steps")
    for backbone in arguments.backbones:
        (compare if arguments.options else measure)(backbone, arguments.rounds)


if __name__ == "__main__":
    main()
