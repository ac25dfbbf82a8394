"""Executed notebooks as HTML pages that need no network: pictures inside, formulas as MathML, light and dark."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from wsolkit.system.writing import atomic_file

if TYPE_CHECKING:
    from jinja2 import Environment

STYLE = "style.css"

_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?![\w$])", re.DOTALL)
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


def environment() -> "Environment":
    """The package's templates; everything that is put into them is escaped unless marked as safe."""
    from jinja2 import Environment, PackageLoader

    return Environment(loader=PackageLoader("wsolkit.batch"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def write_page(executed: Path, index: str) -> Path:
    """Write ``<name>.html`` beside an executed notebook.

    Args:
        executed: the notebook.
        index: name of the page that leads back to all others.

    Returns:
        The page.
    """
    import nbformat
    from nbconvert import HTMLExporter

    from wsolkit.batch.still_widgets import StillWidgets

    notebook, _ = StillWidgets().preprocess(nbformat.read(executed, as_version=4), {})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_as_mathml(cell.source)
    body, _ = HTMLExporter(template_name="basic", exclude_anchor_links=True).from_notebook_node(notebook)
    page = executed.with_suffix(".html")
    text = environment().get_template("notebook.html.j2").render(name=executed.stem, body=body, index=index)
    write_style(page.parent)
    with atomic_file(page) as partial:
        partial.write_text(text, encoding="utf-8")
    return page


def write_style(folder: Path) -> None:
    """Write the style sheet that all pages of a folder share."""
    text = environment().get_template(f"{STYLE}.j2").render(code_style=_code_style())
    with atomic_file(folder / STYLE) as partial:
        partial.write_text(text, encoding="utf-8")


def formulas_as_mathml(markdown: str) -> str:
    """Markdown with its TeX formulas, ``$...$`` and ``$$...$$``, as MathML, which browsers show by themselves."""
    parts = _CODE.split(markdown)
    return "".join(part if number % 2 else _FORMULA.sub(_mathml, part) for number, part in enumerate(parts))


def _mathml(found: re.Match) -> str:
    from latex2mathml.converter import convert

    block = found["block"] is not None
    return convert(found["block"] if block else found["inline"], display="block" if block else "inline")


def _code_style() -> str:
    """Colours of code, on light and on dark."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
