"""Metric learning: pairs, triplets, in-batch losses, proxies."""
