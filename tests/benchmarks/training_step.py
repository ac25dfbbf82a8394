"""Images a second of a training step of every method, and its time over that of the vanilla method.

Beside it stands the ratio of their operations, as `wsolkit.reproduce.cost` counts them. The methods take turns, so that
a noisy machine disturbs all alike. With ``--options`` it compares, for the paper's method, the ways to run it instead:
memory layout, fused SGD, compilation.

Run: python tests/benchmarks/training_step.py [backbone ...] [--threads N] [--rounds N] [--options]
"""

import argparse
import statistics
import time

import torch
from torch.optim import SGD

from wsolkit import methods
from wsolkit.reproduce.cost import step_cost
from wsolkit.training import profiles
from wsolkit.training.engine import Engine, Stepper, optimise, totals
from wsolkit.training.loading import Loaded
from wsolkit.training.recipes import Recipe

SIZES = {
    "mini_vgg": (64, 32),
    "mini_resnet": (64, 32),
    "mobilenet_v2": (144, 8),
    "vgg16": (224, 4),
    "resnet50": (224, 4),
}
"""Side of the images in pixels and images a step."""

CLASSES = 10
OPTIONS = {
    "channels last": {},
    "contiguous": {"contiguous": True},
    "fused SGD": {"fused": True},
    "compiled": {"compiled": True},
}
"""Ways to run the same training; the first is the kit's on a CPU."""

STEPS = 8


def recipe_of(method: str, backbone: str) -> Recipe:
    """A step of a method as in the profile demo, on another backbone and its images."""
    side, count = SIZES[backbone]
    made = profiles.get("demo").recipe(method=None if method == "bridging" else method)
    return made.changed(backbone=backbone, crop_size=side, resize_size=side, batch_size=count, pretrained=None)


class Trainer:
    """Takes training steps on one fixed batch."""

    def __init__(self, recipe: Recipe, **options: bool):
        """Build the network and its optimizer; options are those of :data:`OPTIONS`."""
        layout = torch.contiguous_format if options.get("contiguous") else torch.channels_last
        self.model = recipe.network(CLASSES).to(memory_format=layout).train()
        groups = self.model.parameter_groups(1e-3, 1e-3)
        self.optimizer = SGD(groups, momentum=0.9, weight_decay=5e-4, fused=options.get("fused") or None)
        step = recipe.components.method.step
        self.stepper = Stepper(self.model, torch.compile(step) if options.get("compiled") else step)
        images = torch.randn(recipe.batch_size, 3, recipe.crop_size, recipe.crop_size).to(memory_format=layout)
        labels = torch.arange(recipe.batch_size) % CLASSES
        partners = images.flip(0), labels.flip(0)
        self.batch = Loaded(images, labels, range(len(labels)), len(labels), partners)
        self.generator = torch.Generator().manual_seed(0)
        self.engine = Engine(images.device)

    def images_per_second(self) -> float:
        """Speed of a few steps of the main stage."""
        start = time.perf_counter()
        taken = [optimise(self.engine, self.stepper, self.optimizer, self.batch, self.generator) for _ in range(STEPS)]
        totals(self.engine, taken)
        return STEPS * self.batch.size / (time.perf_counter() - start)


def measure(backbone: str, rounds: int) -> None:
    """Print a row for each method on one backbone."""
    recipes = {name: recipe_of(name, backbone) for name in sorted(methods.names(), key=lambda name: name != "cam")}
    trainers = [Trainer(recipe) for recipe in recipes.values()]
    speeds = [[trainer.images_per_second() for trainer in trainers] for _ in range(rounds + 1)][1:]
    costs = [step_cost(recipe) for recipe in recipes.values()]
    for number, recipe in enumerate(recipes.values()):
        speed = statistics.median(row[number] for row in speeds)
        time_ratio = statistics.median(row[0] / row[number] for row in speeds)
        operations = costs[number].operations / costs[0].operations
        print(f"| {backbone}, {recipe.label} | {speed:.0f} | {time_ratio:.2f} | {operations:.2f} |")


def compare(backbone: str, rounds: int) -> None:
    """Print a line for each way to run the full method."""
    trainers = {name: Trainer(recipe_of("bridging", backbone), **chosen) for name, chosen in OPTIONS.items()}
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
    if not arguments.options:
        print("| step | images/s | time over vanilla | operations over vanilla |\n| --- | --- | --- | --- |")
    for backbone in arguments.backbones:
        (compare if arguments.options else measure)(backbone, arguments.rounds)


if __name__ == "__main__":
    main()
