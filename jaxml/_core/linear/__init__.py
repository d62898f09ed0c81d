"""Functions of a linear layer's logits, which are computed tile by tile."""
