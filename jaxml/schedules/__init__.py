"""Schedules: schedule(hyperparams...) -> a function of the step 0, 1, ...

A schedule works wherever optax takes one. Every hyperparameter may be traced, step
counts included, because no Python branch depends on its value. A Python number out of
its range raises a ValueError. Past its last step, a schedule keeps its last value.
"""

from jaxml.schedules._decay import (
    constant as constant,
    linear as linear,
    polynomial as polynomial,
    exponential as exponential,
    step_decay as step_decay,
    cosine as cosine,
    cosine_restarts as cosine_restarts,
)
from jaxml.schedules._warmup import (
    warmup_cosine as warmup_cosine,
    warmup_linear as warmup_linear,
    warmup_stable_decay as warmup_stable_decay,
    inverse_sqrt as inverse_sqrt,
    one_cycle as one_cycle,
)
from jaxml.schedules._join import (
    join as join,
)
