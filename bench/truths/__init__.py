"""True values of activations, and least-squares problems with known minima."""
