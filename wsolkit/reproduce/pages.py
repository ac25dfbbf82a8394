"""Executed notebooks as HTML pages that need no network: pictures inside, formulas as MathML, light and dark."""

import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsolkit.system.atomic_files import write_file

if TYPE_CHECKING:
    from jinja2 import Environment
    from nbformat import NotebookNode

STYLE = "style.css"

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def environment() -> "Environment":
    """The package's templates; everything that is put into them is escaped unless marked as safe."""
    from jinja2 import Environment, PackageLoader

    made = Environment(loader=PackageLoader("wsolkit.reproduce"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["shell"] = shlex.quote
    return made


def write_page(executed: Path, index: str) -> Path:
    """Write ``<name>.html`` beside an executed notebook.

    Args:
        executed: the notebook.
        index: name of the page that leads back to all others.

    Returns:
        The page.
    """
    import nbformat
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        inline_math = staticmethod(mathml)
        block_math = staticmethod(lambda body: mathml(body, "block"))

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    @pass_context
    def to_html(context: Mapping, markdown: str) -> str:
        pictures = context["cell"].get("attachments", {})
        renderer = Renderer(escape=False, exclude_anchor_links=True, attachments=pictures)
        return MarkdownWithMath(renderer=renderer).render(markdown)

    exporter = HTMLExporter(template_name="basic", filters={"markdown2html": to_html})
    notebook, _ = still_widgets(nbformat.read(executed, as_version=4), {})
    body, _ = exporter.from_notebook_node(notebook)
    page = executed.with_suffix(".html")
    text = environment().get_template("notebook.html.j2").render(name=executed.stem, body=body, index=index)
    write_style(page.parent)
    write_file(page, text)
    return page


def mathml(body: str, display: Literal["inline", "block"] = "inline") -> str:
    """A formula as MathML, which browsers show by themselves; as code if it cannot be converted."""
    from latex2mathml.converter import convert

    try:
        return convert(body, display=display)
    except Exception:  # it has a class for each mistake, and an IndexError for some
        return f"<code>{escape(body)}</code>"


def write_style(folder: Path) -> None:
    """Write the style sheet that all pages of a folder share."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    text = environment().get_template(f"{STYLE}.j2").render(light=light, dark=dark)
    write_file(folder / STYLE, text)


def still_widgets(notebook: "NotebookNode", resources: dict) -> tuple["NotebookNode", dict]:
    """Leave only the still pictures of widgets, which show nothing without their kernel; a preprocessor of nbconvert.

    Args:
        notebook: changed in place: outputs that are nothing but a widget go.
        resources: handed on.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if _is_still(output)]
    return notebook, resources


def _is_still(output: "NotebookNode") -> bool:
    """Take the widget out of an output; whether there was none, or a picture is left."""
    data = output.get("data", {})
    return data.pop(WIDGET_VIEW, None) is None or any(kind.startswith("image/") for kind in data)
