"""Training on images that were purified before."""

from relearn.methods.erm import ERM
from relearn.registry import PurificationName, register


@register
class Purified(ERM):
    """Plain training on the training set that a `purification` has made of the poisoned one; test images stay.

    The purified set is an artifact of its own, shared by methods, architectures and seeds.
    """

    def __init__(self, *, purification: PurificationName, **augmentation):
        super().__init__(**augmentation)
        self.purification = purification  # the grid reads it from params.yaml
