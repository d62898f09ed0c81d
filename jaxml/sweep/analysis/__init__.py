"""Statistics of finished sweeps."""
