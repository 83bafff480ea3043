"""Poisons: each makes the perturbation of a training set."""
