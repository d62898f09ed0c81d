"""The ground floor: what every chapter stands on. It knows JAX and nothing of jaxml."""
