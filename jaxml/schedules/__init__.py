"""Schedules: schedule(numbers...), a function of the step 0, 1, ...

They stand wherever optax takes a schedule. No branch looks at a number, lengths
included, so every one may be traced. Beyond its end a schedule keeps its last value.
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
    inverse_sqrt as inverse_sqrt,
    one_cycle as one_cycle,
)
from jaxml.schedules._join import (
    join as join,
)
