"""Values and derivatives of the smooth activations, accurate to the last bits."""
