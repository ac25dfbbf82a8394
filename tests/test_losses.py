import pytest
import torch

from wsolkit import losses

NORM = torch.tensor([[[0.0, 1.0], [4.0, 10.0]]])
"""Normalised: 0, 0.1, 0.4, 1."""


def test_similarity_loss_by_hand_with_strict_thresholds():
    similarity = torch.tensor([[[0.2, -0.4], [0.5, 0.9]]])
    # Foreground (> 0.3): 0.5 and 0.9. Background (< 0.2): 0.2 and -0.4.
    expected = -(0.5 + 0.9) / 2 + (0.2 - 0.4) / 2
    assert losses.similarity_loss(NORM, similarity, 0.3, 0.2).item() == pytest.approx(expected, rel=1e-6)
    # 0.4 is not above tau_fg = 0.4, and 0.1 is not below tau_bg = 0.1.
    assert losses.similarity_loss(NORM, similarity, 0.4, 0.1).item() == pytest.approx(-0.9 + 0.2, rel=1e-6)


def test_norm_loss_by_hand():
    similarity = torch.tensor([[[-0.3, 0.0], [0.2, 0.8]]])
    # Foreground: 0.4 and 1. Background: 0. The cell of zero similarity is neither (Eq. 7) or background (Sec. 4.1).
    assert losses.norm_loss(NORM, similarity).item() == pytest.approx(-0.7, rel=1e-6)
    assert losses.norm_loss(NORM, similarity, "background").item() == pytest.approx(-0.7 + 0.05, rel=1e-6)


def test_drop_loss_by_hand():
    features = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 4.0]]]])
    erased = torch.tensor([[[[1.0, 0.0]]], [[[3.0, 3.0]]]])
    assert losses.drop_loss(features, erased).item() == pytest.approx(6 / 4, rel=1e-6)
    assert losses.drop_loss(features, erased, "sum").item() == pytest.approx((2 + 4) / 2, rel=1e-6)


def test_losses_are_means_over_the_images():
    norm = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(0))
    similarity = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5
    for loss in (lambda n, s: losses.similarity_loss(n, s, 0.6, 0.3), losses.norm_loss):
        single = [loss(norm[i : i + 1], similarity[i : i + 1]).item() for i in range(5)]
        assert loss(norm, similarity).item() == pytest.approx(sum(single) / 5, rel=1e-5)


def test_empty_regions_contribute_nothing_and_have_finite_gradients():
    norm = torch.full((1, 2, 2), 3.0, requires_grad=True)
    similarity = torch.full((1, 2, 2), 0.5, requires_grad=True)
    # A constant norm map is 0 everywhere when normalised: no foreground, and with tau_bg = 0 no background.
    nothing = losses.similarity_loss(norm, similarity, 0.5, 0.0)
    positive_only = losses.norm_loss(norm, similarity)
    (nothing + positive_only).backward()
    assert nothing.item() == positive_only.item() == 0
    assert torch.isfinite(norm.grad).all()
    assert (similarity.grad == 0).all()


def test_gradients_go_where_they_should():
    norm = NORM.clone().requires_grad_()
    similarity = torch.tensor([[[-0.5, 0.1], [0.5, 0.5]]], requires_grad=True)
    losses.similarity_loss(norm, similarity, 0.3, 0.2).backward()
    assert norm.grad is None
    assert similarity.grad.tolist() == [[[0.5, 0.5], [-0.5, -0.5]]]
    similarity.grad = None
    losses.norm_loss(norm, similarity).backward()
    assert similarity.grad is None
    assert norm.grad[0, 1, 0] < 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("cell", range(4))
@pytest.mark.parametrize("which", [0, 1])
def test_nan_and_infinity_anywhere_make_every_loss_not_finite(value, cell, which):
    both = [torch.stack([NORM[0], NORM[0]]), torch.tensor([[[-0.3, 0.0], [0.2, 0.8]]] * 2)]
    both[which][1].view(-1)[cell] = value
    found = [losses.similarity_loss(*both, 0.6, 0.1), losses.norm_loss(*both), losses.norm_loss(*both, "background")]
    found += [losses.drop_loss(both[0][None], both[1][None], reduction) for reduction in ("mean", "sum")]
    assert not any(torch.isfinite(each) for each in found)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda one, three: losses.similarity_loss(one, three, 0.5, 0.1), r"\(1, 2, 2\) and \(3, 2, 2\)"),
        (lambda one, three: losses.norm_loss(three, one), r"\(3, 2, 2\) and \(1, 2, 2\)"),
        (lambda one, three: losses.norm_loss(one[0], one[0]), r"\(2, 2\)"),
        (lambda one, three: losses.drop_loss(one[None], three[None]), r"\(1, 1, 2, 2\) and \(1, 3, 2, 2\)"),
        (lambda one, three: losses.norm_loss(one, one, "Background"), "zero_similarity = 'Background'"),
        (lambda one, three: losses.drop_loss(one[None], one[None], "Mean"), "reduction = 'Mean'"),
        (lambda one, three: losses.similarity_loss(one, one, 60, 0.1), "tau_fg = 60"),
        (lambda one, three: losses.similarity_loss(one, one, 0.6, float("nan")), "tau_bg = nan"),
    ],
)
def test_shapes_words_and_shares_are_checked(call, named):
    with pytest.raises(ValueError, match=named):
        call(torch.ones(1, 2, 2), torch.ones(3, 2, 2))
