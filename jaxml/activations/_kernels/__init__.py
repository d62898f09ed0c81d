"""The arithmetic behind the smooth activations."""
