"""The site: pages beside this file, and one for each module from its docstrings; ``make docs`` builds it offline."""

from importlib import import_module
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

#: The reference: one page for each module or package, in this order.
GROUPS = {
    "The method": ["maps", "losses", "erasing", "decomposition", "methods", "models"],
    "Evaluation": ["metrics", "metrics.boxes", "metrics.components", "metrics.score_maps", "metrics.torch_metrics"],
    "Data and published values": ["datasets", "published"],
    "Runs": ["training"],
    "Tables, figures and claims": ["study"],
    "Reproducing it all": ["reproduce"],
    "Your own pictures and classifiers": ["localize"],
    "The rest": ["system", "errors"],
}

#: Packages whose every module gets a page.
WHOLE = ("training", "study", "reproduce", "localize", "system")


def write_reference(app: object) -> None:
    """Write the reference's pages, one for each module."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    lines = ["# Reference", ""]
    for title, listed in GROUPS.items():
        names = [page for name in listed for page in _pages(name)]
        lines += [f"## {title}", "", "```{toctree}", ":maxdepth: 1", "", *names, "```", ""]
        for name in names:
            page = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: wsolkit.{name}\n   :members:\n```\n"
            _write(folder / f"{name}.md", page)
    _write(folder / "index.md", "\n".join(lines))


def _pages(name: str) -> list[str]:
    if name not in WHOLE:
        return [name]
    modules = iter_modules(import_module(f"wsolkit.{name}").__path__)
    return [name, *(f"{name}.{module.name}" for module in modules if not module.name.startswith("_"))]


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app) -> None:  # noqa: ANN001 - Sphinx's
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
