import numpy as np

from tests.conftest import tiny_recipe
from wsolkit.metrics.boxes import pairwise_iou
from wsolkit.reproduce.pages import WIDGET_VIEW
from wsolkit.study import explorer
from wsolkit.training.evaluation import localize


def test_sliders_draw_what_they_say_and_have_a_still(store, machine):
    run = store.get(tiny_recipe(snapshot_epochs=(1, 3)))
    data = machine.open(run.recipe, "test")
    recording = explorer.record({"ours": run}, data, [0, 1])
    assert recording.epochs == (1, 3)
    _, boxes = localize(run.model(3), data, [1], "norm", 0.5)
    iou = pairwise_iou(boxes[0], data[1].boxes).max()
    view = recording.draw(1, ["norm"], [3], 0.5)
    assert view.axes[1].get_title() == f"ours\nnorm map F\nIoU {iou:.2f}, epoch 3"
    np.testing.assert_array_equal(view.axes[0].images[0].get_array(), data[1].image)

    shown = explorer.Explorer(recording)
    picture, kind, epoch, threshold = shown.box.children[:4]
    assert (picture.value, threshold.value, epoch.value, kind.value) == (0, explorer.START, 3, "cam")
    seen = {shown.box.children[-1].value}
    for slider, value in ((picture, 1), (threshold, 0.9), (epoch, 1), (kind, "norm")):
        slider.value = value
        seen.add(shown.box.children[-1].value)
    assert len(seen) == 5
    bundle = shown._repr_mimebundle_()
    assert WIDGET_VIEW in bundle
    assert bundle["image/jpeg"][:2] == b"\xff\xd8"
