"""Network architectures, each an ordered list of layer groups."""
