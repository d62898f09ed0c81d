"""Losses: loss(predicted, true, *, parameters, where=None), one value per example.

The axes that a loss consumes are its event; all others are batch and pass through.
Losses never reduce: `mean` is the only reduction. Numbers may be traced. What stands
under False in `where` may be anything: it changes neither a value nor a gradient.
"""

from jaxml.losses._reduce import (
    mean as mean,
)
from jaxml.losses._classification import (
    cross_entropy as cross_entropy,
    soft_cross_entropy as soft_cross_entropy,
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    focal_loss as focal_loss,
)
from jaxml.losses._linear import (
    linear_cross_entropy as linear_cross_entropy,
)
from jaxml.losses._regression import (
    squared_error as squared_error,
)
from jaxml.losses._pairs import (
    triplet_loss as triplet_loss,
)
from jaxml.losses._overlap import (
    dice_loss as dice_loss,
)
