"""How fast relearn is and how near the limit of the machine: `python -m benchmarks` prints one report."""
