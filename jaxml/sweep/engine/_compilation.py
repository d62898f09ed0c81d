"""Compiled programs, found again by plans of the same shapes and functions."""

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import jax

MAX_PROGRAMS = 128  # a plan has at most five

_compiled: dict[Hashable, Any] = {}


def compile_once(lowered: Any, devices: Sequence[Any]) -> Any:
    """The compiled program; an equal one is compiled once in a process.

    Programs are equal if their code is: functions of other identity, such as those of a
    task that is made anew, do not matter, and numbers that are compiled in do.
    """
    key = (
        hashlib.sha256(lowered.as_text().encode()).digest(),
        lowered.in_tree,
        tuple(map(str, jax.tree.leaves(lowered.in_avals))),  # unused ones too
        lowered.out_tree,
        tuple(devices),
        repr(jax.config.values),  # some choose how XLA compiles
    )
    if key not in _compiled:
        program = lowered.compile()
        while len(_compiled) >= MAX_PROGRAMS:
            del _compiled[next(iter(_compiled))]
        _compiled[key] = program
    return _compiled[key]
