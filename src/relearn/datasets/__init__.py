"""Datasets that can be registered: each loads or makes a training and a test split."""
