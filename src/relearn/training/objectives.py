"""Losses that need no labels."""

import torch
import torch.nn.functional as F

VIEWS = 2  # of each image, so passes per image and epoch


def nt_xent(projections: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The contrastive loss NT-Xent of two views, and which projections are nearest to their partner, (2B,) bool.

    `projections` (2B, D) has those of the first views, then those of the second in the same order. Each is to be found
    among all others by its cosine similarity to its partner, over `temperature`. Chen et al., 2020 (arXiv 2002.05709),
    equation 1.
    """
    count = len(projections)
    unit = F.normalize(projections, dim=1)
    similarity = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)  # none is compared with itself
    partner = torch.arange(count, device=projections.device).roll(count // 2)
    return F.cross_entropy(similarity, partner), similarity.argmax(1) == partner
