import pytest
import torch

from wsolkit import losses

NORM = torch.tensor([[[0.0, 1.0], [4.0, 10.0]]])
"""Normalised: 0, 0.1, 0.4, 1."""


def test_similarity_loss_by_hand():
    similarity = torch.tensor([[[0.2, -0.4], [0.5, 0.9]]])
    # Foreground (> 0.3): 0.5 and 0.9. Background (< 0.2): 0.2 and -0.4.
    expected = -(0.5 + 0.9) / 2 + (0.2 - 0.4) / 2
    assert losses.similarity_loss(NORM, similarity, 0.3, 0.2).item() == pytest.approx(expected, rel=1e-6)


def test_thresholds_are_strict():
    similarity = torch.ones(1, 2, 2)
    # 0.4 is neither above tau_fg = 0.4 nor, as 1, below it; 0.1 is not below tau_bg = 0.1.
    values = torch.tensor([[[0.3, 0.0], [0.0, 0.7]]])
    assert losses.similarity_loss(NORM, values, 0.4, 0.1).item() == pytest.approx(-0.7 + 0.3, rel=1e-6)
    assert losses.similarity_loss(NORM, similarity, 0.4, 0.1).item() == pytest.approx(0, abs=1e-7)


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
    assert nothing.item() == 0
    assert positive_only.item() == 0
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


def test_a_descent_step_lowers_each_loss():
    generator = torch.Generator().manual_seed(3)
    norm = torch.rand(2, 4, 4, generator=generator, requires_grad=True)
    similarity = (torch.rand(2, 4, 4, generator=generator) - 0.5).requires_grad_()
    before = losses.similarity_loss(norm, similarity, 0.5, 0.3)
    (gradient,) = torch.autograd.grad(before, similarity)
    assert losses.similarity_loss(norm, similarity - 0.1 * gradient, 0.5, 0.3) < before
    before = losses.norm_loss(norm, similarity)
    (gradient,) = torch.autograd.grad(before, norm)
    assert losses.norm_loss(norm - 0.01 * gradient, similarity) < before


def test_nan_is_passed_on_for_training_to_name():
    norm = NORM.clone()
    norm[0, 0, 0] = float("nan")
    assert torch.isnan(losses.norm_loss(norm, torch.ones(1, 2, 2)))
