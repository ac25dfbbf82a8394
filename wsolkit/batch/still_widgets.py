"""An nbconvert preprocessor that leaves of widgets their still pictures: without their kernel they show nothing."""

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class StillWidgets(Preprocessor):
    """Takes the views of widgets, and their saved state, out of a notebook; changes it in place."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Clean a whole notebook; outputs that are nothing but a widget go."""
        nb.metadata.pop("widgets", None)
        for cell in nb.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if _still(output)]
        return nb, resources


def _still(output: NotebookNode) -> bool:
    """Take the view out of an output; whether a picture is left where there was one."""
    data = output.get("data", {})
    return data.pop(WIDGET_VIEW, None) is None or any(kind.startswith("image/") for kind in data)
