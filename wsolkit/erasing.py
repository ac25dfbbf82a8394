"""Erasing the most activated cells of a feature map, and attentive dropout (paper, Sec. 4.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wsolkit.maps import require_share


def attended_cells(features: Tensor, drop_threshold: float) -> Tensor:
    """Cells whose channel mean exceeds a share of its maximum over the image.

    Args:
        features: (B, C, H, W).
        drop_threshold: that share, in [0, 1]; gamma in the paper, which leaves open what it is relative to. The
            released code takes the maximum over the locations, and so do we.

    Returns:
        (B, 1, H, W) bool. No cell of an image is attended where all features are 0, or where a feature is NaN or
        infinite: erasing must not hide that the network has diverged.

    Raises:
        ValueError: if the features are of another shape, or the share is not in [0, 1].
    """
    require_share("drop_threshold", drop_threshold)
    if features.ndim != 4 or not features.is_floating_point():
        received = f"{tuple(features.shape)} of {features.dtype}"
        raise ValueError(f"Expected float features of shape (B, C, H, W), received {received}.")
    level = features.detach().mean(1, keepdim=True)
    finite = torch.isfinite(level).flatten(1).all(1)[:, None, None, None]
    return (level > drop_threshold * level.amax((2, 3), keepdim=True)) & finite


class AttentiveDropout(torch.nn.Module):
    """Zeroes attended cells over all channels, each with a probability; the identity in evaluation (paper, Fig. 4)."""

    def __init__(self, drop_threshold: float, drop_prob: float):
        """Set the two hyperparameters.

        Args:
            drop_threshold: share of the largest channel mean above which a cell is attended, in [0, 1] (paper: gamma).
            drop_prob: probability that an attended cell is dropped, in [0, 1] (paper: p).

        Raises:
            ValueError: if one of them is not in [0, 1].
        """
        super().__init__()
        require_share("drop_threshold", drop_threshold)
        require_share("drop_prob", drop_prob)
        self.drop_threshold, self.drop_prob = drop_threshold, drop_prob

    def forward(self, features: Tensor, draw: Callable[[Sequence[int]], Tensor] = torch.rand) -> Tensor:
        """Drop cells.

        Args:
            features: (B, C, H, W); not modified.
            draw: returns uniform numbers in [0, 1) of a given shape, on the CPU, so that the same seed drops the same
                cells on any device.

        Returns:
            (B, C, H, W); kept cells are not rescaled.
        """
        if not self.training:
            return features
        cells = attended_cells(features, self.drop_threshold)
        chosen = draw(cells.shape).to(features.device) < self.drop_prob
        return features.masked_fill(cells & chosen, 0)
