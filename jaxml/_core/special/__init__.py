"""Special functions and their derivatives, accurate to the last bits."""
