"""Shared by all chapters. It knows JAX, and nothing of losses or activations."""
