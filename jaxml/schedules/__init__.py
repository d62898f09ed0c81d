"""Schedules: schedule(numbers...), a function of the step 0, 1, ...

They stand wherever optax takes a schedule. No branch looks at a number, lengths
included, so every one may be traced. Beyond its end a schedule keeps its last value.
"""

from jaxml.schedules._decay import (
    constant as constant,
    cosine as cosine,
)
from jaxml.schedules._warmup import (
    warmup_cosine as warmup_cosine,
)
