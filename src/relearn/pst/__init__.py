"""Progressive Staged Training in a PyTorch loop of your own (docs/pst.md). Dang et al., 2023 (arXiv 2306.02064)."""

from relearn.pretraining.contrastive import Contrastive
from relearn.pst.loop import PST

__all__ = ["PST", "Contrastive"]
