"""Analysis of finished sweeps: leaderboards, comparisons, ranks, statistics."""
