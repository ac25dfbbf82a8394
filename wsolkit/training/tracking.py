"""Training curves in TensorBoard, or another tracker that Accelerate supports."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wsolkit.errors import TrainingError, require_known

#: Takes an epoch's row of the history, and its number.
Log = Callable[[Mapping[str, object], int], None]


@contextmanager
def tracked(tracker: str | None, folder: Path, run: str) -> Iterator[Log]:
    """Log epochs to a tracker inside the block.

    Args:
        tracker: ``"tensorboard"``, ...; None logs nowhere.
        folder: a tracker that writes files does so in ``<folder>/<tracker>``.
        run: the run's name in the tracker.

    Yields:
        A function that logs one epoch.

    Raises:
        RecipeError: if Accelerate does not support the tracker.
        TrainingError: if the tracker, or Accelerate, is not installed.
    """
    if tracker is None:
        yield lambda row, epoch: None
        return
    try:
        from accelerate import Accelerator
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError:
        raise TrainingError("Tracking needs Accelerate: pip install accelerate.") from None
    require_known("tracker", tracker, LOGGER_TYPE_TO_CLASS)
    if tracker not in map(str, get_available_trackers()):
        raise TrainingError(f"The tracker {tracker!r} is not installed: pip install {tracker}.")
    accelerator = Accelerator(log_with=tracker, project_dir=folder)
    accelerator.init_trackers(tracker if LOGGER_TYPE_TO_CLASS[tracker].requires_logging_directory else run)
    try:
        yield lambda row, epoch: accelerator.log(dict(row), step=epoch)
    finally:
        for each in accelerator.trackers:  # not `end_training`: that ends the other processes' training too
            each.finish()
