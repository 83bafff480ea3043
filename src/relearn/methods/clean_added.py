"""The baseline of every defence: plain training by someone who has some of the images clean."""

import torch

from relearn.data import Split, draw_share
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import CleanCount, register


@register
class CleanAdded(ERM):
    """Plain training in which about `images` of the training images are clean, in place of their poisoned versions.

    A baseline: a defence must beat what a few clean images are worth by themselves. The authors of BridgePure (NeurIPS
    2025) add 500 and 4,000. They are drawn by the seed of the cell, a share of every class, rounded, and at least one;
    fewer are a part of more. The poison was crafted on all images, unlike with a `ratio`. With `alone` training uses
    only these: they are repeated to the size of the training set, so that the number of steps stays the same. Raises
    UserError for more images than there are.
    """

    def __init__(self, *, images: CleanCount = 500, alone: bool = False, **augmentation):
        super().__init__(**augmentation)
        self.images, self.alone = images, alone

    def with_clean(self, train: Split, clean: Split, generator: torch.Generator) -> Split:
        """The training split with the clean images in it, or made of them alone."""
        count = len(train)
        if self.images > count:
            raise UserError(f"clean_added: images is {self.images}, but the training set has {count}; give fewer")
        chosen = draw_share(clean.labels, self.images / count, generator)
        if self.alone:
            rows = torch.nonzero(chosen).flatten()
            return clean.pick(rows.repeat(-(-count // len(rows)))[:count])
        images = train.images.clone()
        images[chosen] = clean.images[chosen]
        return train.with_images(images)
