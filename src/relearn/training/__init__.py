"""The training loop, its parts, and the staging of PST."""
