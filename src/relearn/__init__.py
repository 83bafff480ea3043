"""relearn: train on unlearnable examples, measure the learning trap, escape it with Progressive Staged Training."""

__version__ = "0.3.0"
