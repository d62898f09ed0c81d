"""Compiles a plan, runs it, and saves it."""
