"""What the paper's runs cost: operations, images, storage, and time on 1, 8 and 64 GPUs; the numbers of docs/cost.md.

Operations are counted, sizes are those of the recipes and data sets. What a GPU, a core, a disk and a network manage is
assumed, by the options, and printed.

Run: python tests/benchmarks/cost.py [--tflops T] [--decode N] [--read GB] [--link GB] [--network GB]
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsolkit import datasets, methods, models
from wsolkit.reproduce import cost, planning
from wsolkit.training import profiles
from wsolkit.training.recipes import Recipe

PAPER = profiles.get("paper")
EXPERIMENTS = [(data, net) for data in ("CUB", "ImageNet-1K") for net in ("VGG16", "ResNet50")]
GPUS_A_NODE = 8


@cache
def operations(recipe: Recipe) -> tuple[float, float, int]:
    """Of one image: a forward pass, that of what follows the drop point (GFLOP); and the parameters."""
    with torch.device("meta"):
        model = models.build(recipe.backbone, datasets.find(recipe.dataset).extent.classes)
        images = torch.empty(1, 3, recipe.crop_size, recipe.crop_size)
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        output = model(images)
    with torch.no_grad(), FlopCounterMode(display=False) as tail:
        model.after_drop_point(output.drop_point)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return whole.get_total_flops() / 1e9, tail.get_total_flops() / 1e9, parameters


@cache
def step_operations(recipe: Recipe) -> float:
    """GFLOP of an image in a training step, forward and backward."""
    return cost.step_cost(recipe, batch_size=2).operations / 2e9


def run_operations(recipe: Recipe, forward: float) -> float:
    """EFLOP of a run: a step's share for each training image, a forward pass for each that is judged."""
    sizes = datasets.find(recipe.dataset).extent.images
    trained = recipe.epochs * sizes["train-weaksup"] * step_operations(recipe)
    judged = recipe.epochs * sizes["train-fullsup"] + sizes["test"]
    return (trained + forward * judged) / 1e9


def cache_bytes(recipe: Recipe) -> dict[str, int]:
    """The decoded images of each split."""
    return {
        split: 3 * recipe.size_of(split) ** 2 * n for split, n in datasets.find(recipe.dataset).extent.images.items()
    }


def steps(recipe: Recipe, images: int = 64) -> Iterator[str]:
    """A row a method: operations an image and step, over vanilla, and the memory of a step."""
    vanilla = None
    for name in sorted(methods.names(), key=lambda name: name != "cam"):
        changed = recipe if name == recipe.method else recipe.changed(method=name, method_options={})
        full, half = (cost.step_cost(changed, precision, images) for precision in ("float32", "bf16"))
        vanilla = vanilla or full
        ratio = full.operations / vanilla.operations
        memory = f"{full.memory / 1e9:.1f} | {full.memory / vanilla.memory:.2f} | {half.memory / 1e9:.1f}"
        yield f"{recipe.backbone}, {changed.label} | {full.operations / images / 1e9:.1f} | {ratio:.2f} | {memory}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=60, help="a GPU's, as reached by such networks in bf16")
    parser.add_argument("--decode", type=float, default=350, help="JPEGs of 500x375 a second and core")
    parser.add_argument("--read", type=float, default=3, help="GB/s that a node reads from its disk")
    parser.add_argument("--link", type=float, default=200, help="GB/s between the GPUs of a node")
    parser.add_argument("--network", type=float, default=20, help="GB/s between nodes")
    given = parser.parse_args()
    speeds = f"{given.tflops:g} TFLOP/s a GPU, {given.decode:g} JPEGs/s a core, {given.read:g} GB/s read by a node"
    links = f"{given.link:g} GB/s between GPUs, {given.network:g} GB/s between nodes, {GPUS_A_NODE} GPUs a node"
    print(f"assumed: {speeds}, {links}")
    print("\n| run | GFLOP an image | full over vanilla | epochs | PFLOP a run | weights MB | folder MB | cache GB |")
    print("| --- " * 8 + "|")
    for data, net in EXPERIMENTS:
        full = PAPER.recipe(dataset=data, backbone=net)
        forward, tail, parameters = operations(full)
        kept = 2 * 2 + 1 + len(full.snapshot_epochs)  # last and previous with momentum, best, snapshots
        cells = [
            f"{forward:.1f}",
            f"{1 + tail / forward:.2f}",
            full.epochs,
            f"{run_operations(full, forward) * 1e3:,.0f}",
            f"{parameters * 4e-6:.0f}",
            f"{kept * parameters * 4e-6:.0f}",
            f"{sum(cache_bytes(full).values()) / 1e9:.1f}",
        ]
        print(f"| {data}, {net} |", " | ".join(map(str, cells)), "|")
    print("\n| step of 64 images | GFLOP an image | over vanilla | GB | over vanilla | GB in bf16 |")
    print("| --- " * 6 + "|")
    for net in ("VGG16", "ResNet50"):
        for row in steps(PAPER.recipe(backbone=net)):
            print(f"| {row} |")
    print(
        "\n| run | GPUs | images/s | hours | images a GPU, step | cache read, GB/s | or cores to decode | gradients |"
    )
    print("| --- " * 8 + "|")
    for data, net in EXPERIMENTS[2:]:
        full = PAPER.recipe(dataset=data, backbone=net)
        forward, tail, parameters = operations(full)
        for gpus in (1, 8, 64):
            side_by_side = max(1, gpus // GPUS_A_NODE)
            alone = gpus // side_by_side
            speed = alone * given.tflops * 1e3 / (3 * (forward + tail))
            step = full.batch_size / speed
            sync = 0 if alone == 1 else 2 * parameters * 4 / (given.link * 1e9)  # a ring moves gradients twice
            hours = run_operations(full, forward) * 1e6 / (alone * given.tflops) / 3600
            cells = [
                f"{gpus}, {side_by_side} runs side by side" if side_by_side > 1 else gpus,
                f"{speed * side_by_side:,.0f}",
                f"{hours / side_by_side:.1f} a run",
                f"{full.batch_size / alone:g}",
                f"{speed * 3 * full.resize_size**2 / 1e9:.2f} a node",
                f"{speed / given.decode:.0f} a node",
                f"{sync / step:.0%} of a step",
            ]
            print(f"| {data}, {net} |", " | ".join(map(str, cells)), "|")
    full = PAPER.recipe(dataset="ImageNet-1K")
    forward, tail, parameters = operations(full)
    step = full.batch_size / (64 * given.tflops * 1e3 / (3 * (forward + tail)))
    sync = 2 * parameters * 4 / (given.network * 1e9)
    print(f"\none VGG16 run on 64 GPUs would spend {sync / step:.0f} times as long on gradients as on images")
    plan = planning.plan((), "paper")
    for net in ("vgg16", "resnet50"):
        recipes = [recipe for recipe in plan.recipes if recipe.backbone == net]
        # A seed changes no operation, so each experiment is counted once.
        kinds = Counter(recipe.changed(seed=0, snapshot_epochs=()) for recipe in recipes)
        work = sum(count * run_operations(kind, operations(kind)[0]) for kind, count in kinds.items())
        print(f"\nall {len(recipes)} runs with {net}: {work / 1e-6 / given.tflops / 3600 / 24:.0f} GPU days", end="")
    print()


if __name__ == "__main__":
    main()
