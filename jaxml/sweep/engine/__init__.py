"""Plans, trains and checkpoints the models of a sweep."""
