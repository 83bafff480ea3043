"""Purifications: what makes another training set of the poisoned one, once, for all methods and seeds."""
