"""Optimizers: optimizer(learning_rate, *, hyperparams) -> optax's own (init, update).

An optimizer works wherever optax takes a gradient transformation. `learning_rate` is a
number or a schedule, and every hyperparameter may be traced. A Python number out of its
range raises a ValueError. Accumulators are float32 or wider; updates have the dtype of
the gradients.
"""

from jaxml.optimizers._sgd import (
    sgd as sgd,
    momentum as momentum,
    nesterov as nesterov,
)
from jaxml.optimizers._adaptive import (
    adagrad as adagrad,
    adadelta as adadelta,
    rmsprop as rmsprop,
    centered_rmsprop as centered_rmsprop,
)
from jaxml.optimizers._adam import (
    adam as adam,
    adam_l2 as adam_l2,
    adamw as adamw,
    nadam as nadam,
    radam as radam,
)
from jaxml.optimizers._adam_variants import (
    amsgrad as amsgrad,
    adamax as adamax,
    yogi as yogi,
    adabelief as adabelief,
    lion as lion,
)
from jaxml.optimizers._muon import (
    muon as muon,
)
from jaxml.optimizers._soap import (
    soap as soap,
)
from jaxml.optimizers._averaging import (
    shadow_weights as shadow_weights,
    averaged_params as averaged_params,
)
from jaxml.optimizers._compressed import (
    compressed as compressed,
)
from jaxml.optimizers._newton import (
    newton as newton,
)
from jaxml.optimizers._trust_region import (
    newton_cg as newton_cg,
)
from jaxml.optimizers._least_squares import (
    gauss_newton as gauss_newton,
    levenberg_marquardt as levenberg_marquardt,
)
