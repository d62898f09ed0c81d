"""Optimizers: optimizer(learning_rate, *, parameters), optax's own (init, update).

They stand wherever optax takes a gradient transformation. `learning_rate` is a number
or a schedule; every number may be traced, and its range is checked while it is
Python's. Accumulators are float32 or wider, updates have the gradients' dtype.
"""

from jaxml.optimizers._descent import (
    sgd as sgd,
    momentum as momentum,
    nesterov as nesterov,
)
from jaxml.optimizers._adaptive import (
    adagrad as adagrad,
    rmsprop as rmsprop,
    adam as adam,
    adamw as adamw,
)
