"""Erasing the most activated cells of a feature map, and attentive dropout (paper, Sec. 4.2)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def attended_cells(features: Tensor, drop_threshold: float) -> Tensor:
    """Cells whose channel mean exceeds a share of its maximum over the image.

    Args:
        features: (B, C, H, W).
        drop_threshold: that share, in [0, 1]; gamma in the paper, which leaves open what it is relative to. The
            released code takes the maximum over the locations, and so do we.

    Returns:
        (B, 1, H, W) bool. None where all features are 0.
    """
    level = features.detach().mean(1, keepdim=True)
    return level > drop_threshold * level.amax((2, 3), keepdim=True)


class AttentiveDropout(torch.nn.Module):
    """Zeroes attended cells over all channels, each with a probability; the identity in evaluation (paper, Fig. 4)."""

    def __init__(self, drop_threshold: float, drop_prob: float):
        """Set the two hyperparameters.

        Args:
            drop_threshold: share of the largest channel mean above which a cell is attended (paper: gamma).
            drop_prob: probability that an attended cell is dropped (paper: p).
        """
        super().__init__()
        self.drop_threshold, self.drop_prob = drop_threshold, drop_prob

    def forward(self, features: Tensor, draw: Callable[[Sequence[int]], Tensor] = torch.rand) -> Tensor:
        """Drop cells.

        Args:
            features: (B, C, H, W); not modified.
            draw: gives uniform numbers in [0, 1) of a shape, on the CPU, so that the same seed drops the same cells on
                any device.

        Returns:
            (B, C, H, W); kept cells are not rescaled.
        """
        if not self.training:
            return features
        cells = attended_cells(features, self.drop_threshold)
        chosen = draw(cells.shape).to(features.device) < self.drop_prob
        return features.masked_fill(cells & chosen, 0)
