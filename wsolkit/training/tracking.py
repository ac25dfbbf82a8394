"""Training curves in TensorBoard, or another tracker that Accelerate knows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wsolkit.errors import TrainingError, unknown

Log = Callable[[Mapping[str, object], int], None]
"""Takes the row of an epoch in the history, and its number."""


@contextmanager
def tracked(tracker: str | None, folder: Path, run: str) -> Iterator[Log]:
    """What an epoch is logged to while the block lasts.

    Args:
        tracker: ``"tensorboard"``, ...; None logs nowhere.
        folder: a tracker that writes files does so in ``<folder>/<tracker>``.
        run: how the tracker is to call the run.

    Raises:
        RecipeError: for a tracker that Accelerate does not know.
        TrainingError: for one that is not installed.
    """
    if tracker is None:
        yield lambda row, epoch: None
        return
    opened = _open(tracker, folder, run)
    try:
        yield lambda row, epoch: opened.log(dict(row), step=epoch)
    finally:
        opened.finish()


def _open(tracker: str, folder: Path, run: str):  # noqa: ANN202 - accelerate is imported only where it is used
    try:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError:
        raise TrainingError("Trackers are reached through Accelerate: pip install 'wsolkit[cluster]'.") from None

    if tracker not in LOGGER_TYPE_TO_CLASS:
        raise unknown("tracker", tracker, LOGGER_TYPE_TO_CLASS)
    if tracker not in [str(name) for name in get_available_trackers()]:
        raise TrainingError(f"The tracker {tracker!r} is not installed here: pip install {tracker}.")
    PartialState()  # trackers ask it which process they are in
    known = LOGGER_TYPE_TO_CLASS[tracker]
    opened = known(tracker, folder) if known.requires_logging_directory else known(run)
    if hasattr(opened, "start"):  # older versions start at once
        opened.start()
    return opened
