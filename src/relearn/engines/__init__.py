"""What Snakemake and DVC need beside the grid. Needs no torch."""
