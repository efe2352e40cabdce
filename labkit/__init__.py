"""labkit: the theorem's prediction beside live training."""
