"""Segmentation: regions, boundaries, and counts of pixels."""
