"""Training methods; erm.py defines the hooks that all of them share."""
