import pytest

from wsolkit.errors import RecipeError, TrainingError
from wsolkit.training import loop
from wsolkit.training.machine import Machine
from wsolkit.training.tracking import tracked


def test_epochs_are_logged_to_tensorboard(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loop.train(tiny, tmp_path, Machine(device="cpu", track="tensorboard"))
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert len(found.Scalars("loss_total")) == tiny.epochs
    assert found.Scalars("fullsup_gt_known_loc")[-1].step == tiny.epochs


def test_unknown_and_missing_trackers_say_so(tmp_path, monkeypatch):
    with (
        pytest.raises(RecipeError, match="Unknown tracker 'tensorbord'. Did you mean 'tensorboard'"),
        tracked("tensorbord", tmp_path, "run"),
    ):
        pass
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(TrainingError, match="pip install tensorboard"), tracked("tensorboard", tmp_path, "run"):
        pass
