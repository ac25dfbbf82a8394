"""The site: pages beside this file, and one for each module from its docstrings; ``make docs`` builds it offline."""

from pathlib import Path
from pkgutil import iter_modules

import wsolkit

HERE = Path(__file__).resolve().parent

project = "wsolkit"
release = wsolkit.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "py:obj"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
viewcode_follow_imported_members = False
myst_heading_anchors = 3

html_theme = "furo"
html_title = "wsolkit"
html_extra_path = ["../figures"] if (HERE.parent / "figures" / "demo").is_dir() else []
templates_path = []

GROUPS = {
    "The method": ["maps", "losses", "erasing", "methods", "models", "decomposition"],
    "Judging": ["metrics", "boxes", "components", "score_maps", "evaluation", "statistics", "claims", "statements"],
    "Data": ["datasets", "batches", "downloads", "own_images", "own_models", "picture_files"],
    "Runs": ["recipes", "profiles", "training", "engine", "runs", "warm_stages", "checkpoints", "slurm", "tracking"],
    "Tables and figures": [
        "study",
        "tables",
        "published",
        "plots",
        "pictures",
        "explorer",
        "batch",
        "gallery",
        "pages",
    ],
    "In other clothes": ["torch_metrics", "vision_dataset"],
}
"""What the reference shows first; all other modules follow."""


def write_reference(app: object) -> None:
    """Write the reference's pages, one a module."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    known = {module.name for module in iter_modules(wsolkit.__path__) if not module.name.startswith("_")}
    groups = {**GROUPS, "The rest": sorted(known - {"cli"} - {name for names in GROUPS.values() for name in names})}
    lines = ["# Reference", ""]
    for title, names in groups.items():
        lines += [f"## {title}", "", "```{toctree}", ":maxdepth: 1", "", *names, "```", ""]
        for name in names:
            page = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: wsolkit.{name}\n   :members:\n```\n"
            _write(folder / f"{name}.md", page)
    _write(folder / "index.md", "\n".join(lines))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app) -> None:  # noqa: ANN001 - Sphinx's
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
