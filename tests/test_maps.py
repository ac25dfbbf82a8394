import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolkit import maps

NORMALISATIONS = ("min_max", "max", "pas", "ivr")


@pytest.fixture
def features(generator):
    return torch.randn(3, 5, 4, 6, generator=generator, dtype=torch.float64)


@pytest.fixture
def weight(generator):
    return torch.randn(7, 5, generator=generator, dtype=torch.float64)


TARGET = torch.tensor([6, 0, 3])


def test_norm_map_of_a_hand_worked_feature():
    features = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert maps.norm_map(features).tolist() == [[[5.0, 0.0]]]


def test_similarity_map_of_hand_worked_directions():
    features = torch.tensor([[[[2.0, 0.0, -1.0, 0.0]], [[0.0, 5.0, 0.0, 0.0]]]])
    weight = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    assert maps.similarity_map(features, weight).tolist() == [[[[1.0, 0.0, -1.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]]


def test_target_similarity_is_one_slice_of_the_similarity_map(features, weight):
    slices = maps.similarity_map(features, weight)[range(3), TARGET]
    torch.testing.assert_close(maps.target_similarity(features, weight, TARGET), slices, rtol=1e-9, atol=0)


def test_cam_equals_a_plain_loop(features, weight):
    cam = maps.cam(features, weight, TARGET)
    for image in range(3):
        for row in range(4):
            for column in range(6):
                expected = sum(features[image, c, row, column] * weight[TARGET[image], c] for c in range(5))
                assert cam[image, row, column].item() == pytest.approx(expected.item(), rel=1e-9)


def test_cam_is_the_product_of_its_factors(features, weight):
    """Paper, Eq. 3."""
    norms = weight[TARGET].norm(dim=1)[:, None, None]
    product = norms * maps.norm_map(features) * maps.target_similarity(features, weight, TARGET)
    torch.testing.assert_close(maps.cam(features, weight, TARGET), product, rtol=1e-9, atol=1e-12)


def test_mean_of_cam_plus_bias_is_the_logit(features, weight, generator):
    """Paper, Eq. 4."""
    bias = torch.randn(7, generator=generator, dtype=torch.float64)
    logits = features.mean((2, 3)) @ weight.T + bias
    mean = maps.cam(features, weight, TARGET).mean((1, 2)) + bias[TARGET]
    torch.testing.assert_close(mean, logits[range(3), TARGET], rtol=1e-9, atol=0)


def test_gradients_are_finite_at_a_zero_feature():
    features = torch.zeros(1, 2, 1, 2, requires_grad=True)
    weight = torch.ones(3, 2, requires_grad=True)
    both = (
        maps.similarity_map(features, weight).sum() + maps.target_similarity(features, weight, torch.tensor([1])).sum()
    )
    (both + maps.norm_map(features).sum() + maps.min_max(maps.norm_map(features)).sum()).backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_min_max_of_hand_worked_maps():
    given = torch.tensor([[[2.0, 4.0], [3.0, 6.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert maps.min_max(given).tolist() == [[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]


def test_max_normalise_cuts_negative_values():
    given = torch.tensor([[[-1.0, 2.0], [4.0, 1.0]], [[-1.0, -2.0], [-3.0, 0.0]]])
    assert maps.max_normalise(given).tolist() == [[[0.0, 0.5], [1.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]]]


@pytest.mark.parametrize("scale", [maps.min_max, maps.max_normalise])
def test_normalisation_refuses_nan_and_wrong_shapes(scale):
    broken = torch.zeros(2, 2, 2)
    broken[1, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 2 maps \(first: map 1\)"):
        scale(broken)
    broken[1, 0, 0] = float("inf")
    with pytest.raises(maps.NotFiniteError):
        scale(broken)
    with pytest.raises(ValueError, match=r"\(B, H, W\), received \(2, 2\)"):
        scale(torch.zeros(2, 2))


def test_score_map_resizes_before_it_normalises():
    """The other order would leave the overshoot of bicubic interpolation outside [0, 1]."""
    step = torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 4])
    scores = maps.score_map(step, 16)
    assert scores.dtype == torch.float64
    assert scores.shape == (1, 16, 16)
    assert scores.min() == 0
    assert scores.max() == 1
    resized = torch.nn.functional.interpolate(step.double()[:, None], (16, 16), mode="bicubic")[:, 0]
    assert resized.min() < 0
    assert resized.max() > 1
    torch.testing.assert_close(scores, (resized - resized.min()) / (resized.max() - resized.min()), rtol=1e-9, atol=0)


def test_bicubic_resizing_equals_opencvs():
    """The benchmark resizes with OpenCV."""
    cv2 = pytest.importorskip("cv2")
    cells = torch.rand(1, 14, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = cv2.resize(cells[0].numpy(), (224, 224), interpolation=cv2.INTER_CUBIC)
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    torch.testing.assert_close(maps.score_map(cells, 224)[0], torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_score_map_takes_height_and_width_and_a_named_normalisation():
    given = torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]])
    assert maps.score_map(given, (3, 5), "max").shape == (1, 3, 5)
    assert (maps.score_map(given, 2, "max") == torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])).all()
    with pytest.raises(ValueError, match="'softmax'"):
        maps.score_map(given, 4, "softmax")


def test_inputs_are_not_changed(features, weight):
    before = features.clone(), weight.clone()
    maps.similarity_map(features, weight)
    maps.score_map(maps.cam(features, weight, TARGET), 8)
    maps.max_normalise(maps.cam(features, weight, TARGET))
    assert (features == before[0]).all()
    assert (weight == before[1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_input(features, weight, dtype):
    features, weight = features.to(dtype), weight.to(dtype)
    assert maps.cam(features, weight, TARGET).dtype == dtype
    assert maps.similarity_map(features, weight).dtype == dtype
    assert maps.min_max(maps.norm_map(features)).dtype == dtype


LADDER = torch.arange(-2.0, 8.0, dtype=torch.float64).reshape(1, 2, 5)
"""Ten cells, -2 to 7."""


def test_pas_makes_a_high_percentile_the_upper_bound():
    # Of ten cells, 8 are below the value 6, which so becomes 1, as does the 7 above it.
    expected = [(value + 2) / 8 for value in range(-2, 6)] + [1, 1]
    assert maps.pas(LADDER, 0.8).flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert maps.pas(LADDER, 0.95).tolist() == maps.min_max(LADDER).tolist()


def test_ivr_makes_a_low_percentile_the_lower_bound():
    # Four cells are below the value 2, which so becomes 0.
    expected = [0] * 5 + [value / 5 for value in range(1, 6)]
    assert maps.ivr(LADDER, 0.4).flatten().tolist() == pytest.approx(expected, rel=1e-12)
    assert maps.ivr(LADDER, 0.0).tolist() == maps.min_max(LADDER).tolist()


def test_percentiles_of_flat_maps():
    flat, spike = torch.ones(1, 2, 5), torch.zeros(1, 2, 5)
    spike[0, 1, 2] = 3
    assert not maps.pas(flat).any()
    assert not maps.ivr(flat).any()
    # Nine of ten cells are the lowest value, so the percentile is too; what is above it is as high as it gets.
    assert maps.pas(spike, 0.5).flatten().tolist() == [0] * 7 + [1] + [0] * 2
    assert maps.ivr(spike, 0.95).flatten().tolist() == [0] * 10


@pytest.mark.parametrize("name", ["min_max", "max", "pas", "ivr"])
def test_every_normalisation_gives_scores_and_leaves_its_input_alone(name):
    raw = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = raw.clone()
    scores = maps.score_map(raw, (12, 9), name)
    assert scores.shape == (3, 12, 9)
    assert (scores.amin(), scores.amax()) == (0, 1)
    assert torch.equal(raw, before)


def test_percentile_options_are_checked():
    given = maps.score_map(LADDER, 8, "pas", percentile=0.5)
    torch.testing.assert_close(given, maps.pas(maps.score_map(LADDER, 8), 0.5), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="'max' takes no percentile"):
        maps.score_map(LADDER, 8, "max", percentile=0.5)
    with pytest.raises(ValueError, match="received 1.0"):
        maps.ivr(LADDER, 1.0)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_constant_map_stays_constant_at_every_size(data):
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    number = data.draw(st.floats(-10, 10)) * 10.0 ** data.draw(st.integers(-46, 37))
    most = min(torch.finfo(dtype).max, 1e300)
    value = torch.tensor(number, dtype=torch.float64).clamp(-most, most).to(dtype)
    side = st.integers(1, 40)
    constant = value.expand(1, data.draw(side), data.draw(side))
    size = data.draw(side | st.sampled_from([199, 200, 224])), data.draw(side)
    for name in NORMALISATIONS:
        expected = float(name == "max" and value > 0)
        assert (maps.score_map(constant, size, name) == expected).all(), name


@settings(max_examples=60, deadline=None)
@given(
    level=st.floats(-2, 2, width=32), other=st.floats(-2, 2), place=st.tuples(*[st.integers(0, 13)] * 2), data=st.data()
)
def test_equal_cells_stay_equal_around_one_that_differs(level, other, place, data):
    """Also where resizing misses the one cell, or a percentile is the level of all others."""
    cells = torch.full((1, 14, 14), level)
    cells[0][place] = other
    size = data.draw(st.integers(1, 40))
    resized = torch.nn.functional.interpolate(cells.double()[:, None], (size, size), mode="bicubic")[:, 0]
    same = (resized - level).abs() <= 1e-14 * abs(level)
    for name in ("min_max", "pas", "ivr"):
        scores = maps.score_map(cells, size, name)
        assert not same.any() or scores[same].max() - scores[same].min() <= (1e-9 if name == "min_max" else 0), name
        assert not same.all() or not scores.any(), name


def test_ordinary_maps_are_resized_and_scaled_to_the_bit(generator):
    raw = torch.randn(4, 7, 9, generator=generator)
    wide = torch.nn.functional.interpolate(raw.double()[:, None], (50, 33), mode="bicubic", align_corners=False)[:, 0]
    low, high = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
    assert torch.equal(maps.score_map(raw, (50, 33)), (wide - low) / (high - low))
    assert torch.equal(maps.score_map(raw, (50, 33), "max"), wide.clamp(min=0) / high)


@pytest.mark.parametrize("channels", [3, 128, 512])
@pytest.mark.parametrize("cells", [(7, 7), (5, 9), (1, 7), (14, 14)])
def test_features_that_are_the_same_everywhere_have_no_contrast(channels, cells, generator):
    """A matrix product may round some cells differently; a dead network must not get a box from that."""
    features = torch.randn(2, channels, 1, 1, generator=generator).expand(2, channels, *cells).contiguous()
    weight, target = torch.randn(5, channels, generator=generator), torch.tensor([1, 2])
    found = [maps.cam(features, weight, target), maps.target_similarity(features, weight, target)]
    for each in (*found, maps.norm_map(features), maps.similarity_map(features, weight)[:, 3]):
        assert not maps.score_map(each, 200).any()
    features.requires_grad_()
    maps.cam(features, weight, target).sum().backward()
    torch.testing.assert_close(features.grad, weight[target][:, :, None, None].expand_as(features))


@settings(max_examples=60, deadline=None)
@given(exponent=st.integers(-44, 37), seed=st.integers(0, 99))
def test_tiny_and_huge_features_have_the_norm_and_similarity_of_ordinary_ones(exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    features, weight = (torch.randn(shape, generator=generator) for shape in ((2, 8, 3, 3), (4, 8)))
    scaled = features * 10.0**exponent
    exact, target = scaled.double(), torch.tensor([3, 0])
    rounding = {"rtol": 1e-5, "atol": 1e-44}
    torch.testing.assert_close(maps.norm_map(scaled).double(), maps.norm_map(exact), **rounding)
    expected = torch.nn.functional.cosine_similarity(exact[:, None], weight.double()[None, :, :, None, None], 2, 1e-300)
    torch.testing.assert_close(maps.similarity_map(scaled, weight).double(), expected, rtol=1e-5, atol=1e-5)
    found = maps.target_similarity(scaled, weight, target).double()
    torch.testing.assert_close(found, expected[[0, 1], target], rtol=1e-5, atol=1e-5)


def test_similarity_never_leaves_its_range_and_keeps_its_gradient(generator):
    weight = torch.randn(50, 64, generator=generator)
    features = (weight * torch.rand(50, 1, generator=generator))[:, :, None, None].clone().requires_grad_()
    similarity = maps.target_similarity(features, weight, torch.arange(50))
    assert similarity.max() <= 1
    assert maps.similarity_map(-features, weight).min() >= -1
    (gradient,) = torch.autograd.grad(similarity.sum() + maps.norm_map(features).sum(), features)
    assert (gradient.flatten(1).norm(dim=1) > 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_range_beyond_the_largest_number_does_not_overflow(dtype):
    most = torch.finfo(dtype).max
    given = torch.tensor([[[-most, 0.0], [most, most / 2]]], dtype=dtype)
    assert maps.min_max(given).flatten().tolist() == pytest.approx([0, 0.5, 1, 0.75], abs=0.01)
    for name in (maps.pas, maps.ivr, maps.max_normalise):
        assert (name(given).amin(), name(given).amax()) == (0, 1)
    if dtype == torch.float16:
        assert maps.min_max(torch.tensor([[[-60000.0, 60000.0, 0.0]]], dtype=dtype)).tolist() == [[[0, 1, 0.5]]]


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 400), data=st.data())
def test_a_percentile_of_k_in_n_cells_is_exact(count, data):
    below = data.draw(st.integers(0, count - 1))
    ladder = torch.arange(count, dtype=torch.float64).reshape(1, 1, count)
    assert int((maps.ivr(ladder, below / count) == 0).sum()) == (below + 1 if below < count - 1 else count)
    assert int((maps.pas(ladder, below / count) == 1).sum()) == (count - below if count > 1 else 0) - (
        below == 0 and count > 1
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: maps.min_max(torch.zeros(1, 2, 2, dtype=torch.int64)),
        lambda: maps.score_map(torch.zeros(1, 0, 2), 4),
        lambda: maps.score_map(torch.zeros(1, 2, 2), 0),
        lambda: maps.score_map(torch.zeros(1, 2, 2), (4, 4, 4)),
        lambda: maps.cam(torch.ones(2, 3, 2, 2), torch.ones(4, 3), torch.tensor([True, False])),
        lambda: maps.cam(torch.ones(2, 3, 2, 2), torch.ones(4, 3), torch.tensor([1])),
        lambda: maps.cam(torch.ones(2, 3, 2, 2), torch.ones(4, 3), torch.tensor([1, -1])),
    ],
)
def test_other_types_shapes_and_classes_are_refused(call):
    with pytest.raises(ValueError, match="xpected .* received"):
        call()
    both = torch.ones(2, 3, 2, 2) * torch.tensor([1.0, 2.0])[:, None, None, None]
    wanted = maps.cam(both, torch.eye(4, 3), torch.tensor([0, 1]))
    assert torch.equal(maps.cam(both, torch.eye(4, 3), torch.tensor([0, 1], dtype=torch.uint8)), wanted)


@pytest.mark.parametrize("size", [7.5, 0, (7,), (7, 8, 9), (7, 0), "7", None])
def test_a_size_that_is_none_is_refused_in_words(size):
    with pytest.raises(ValueError, match="Expected a size in pixels, or height and width"):
        maps.score_map(torch.rand(1, 3, 3), size)


def test_features_and_weights_of_different_widths_are_refused_in_words():
    for function in (maps.cam, maps.target_similarity):
        with pytest.raises(ValueError, match=r"class weights \(K, C\), received \(2, 3, 5, 5\) and \(4, 6\)"):
            function(torch.rand(2, 3, 5, 5), torch.rand(4, 6), torch.tensor([0, 1]))
