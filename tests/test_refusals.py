"""Optimizers and schedules refuse invalid arguments with one sentence."""

import jax.numpy as jnp
import pytest

from jaxml import optimizers, schedules

ONES = jnp.ones(1)


def step(optimizer):
    return optimizer.update(ONES, optimizer.init(ONES))


def update(optimizer, **functions):
    return optimizer.update(ONES, optimizer.init(ONES), ONES, **functions)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: optimizers.sgd(-0.1),
            "sgd: learning_rate must be non-negative, got -0.1.",
        ),
        (
            lambda: optimizers.sgd("0.1"),
            "sgd: learning_rate must be a number, got '0.1'.",
        ),
        (lambda: optimizers.adam(0.1, b2=1.0), "adam: b2 must be in [0, 1), got 1.0."),
        (
            lambda: optimizers.adam(0.1, eps=-1),
            "adam: eps must be non-negative, got -1.",
        ),
        (
            lambda: optimizers.adam(0.1, eps=lambda step: 1e-8),
            "adam: eps must be a number, got a function.",
        ),
        (lambda: optimizers.lion(0.1, b2=0), "lion: b2 must be in (0, 1), got 0."),
        (
            lambda: optimizers.radam(0.1, threshold=3),
            "radam: threshold must be at least 4, got 3.",
        ),
        (
            lambda: optimizers.momentum(0.1, decay=jnp.ones(3)),
            "momentum: decay must be a number, got float64[3].",
        ),
        (
            lambda: optimizers.shadow_weights(optimizers.sgd(0.1), decay=1.5),
            "shadow_weights: decay must be in [0, 1), got 1.5.",
        ),
        (
            lambda: optimizers.sgd(0.1).init({"w": jnp.arange(3)}),
            "sgd: params['w'] must be a float or complex array, got int64[3].",
        ),
        (
            lambda: step(optimizers.sgd(lambda step: jnp.ones(2))),
            "sgd: learning_rate must be a number or a schedule that returns one, "
            "got float64[2].",
        ),
        (
            lambda: step(optimizers.adam(lambda step: None)),
            "adam: learning_rate must be a number or a schedule that returns one, "
            "got None.",
        ),
        (
            lambda: optimizers.averaged_params(optimizers.sgd(0.1).init(ONES)),
            "averaged_params: state must contain exactly one shadow_weights state, "
            "got 0.",
        ),
        (
            lambda: optimizers.newton(damping=-1.0),
            "newton: damping must be non-negative, got -1.0.",
        ),
        (
            lambda: optimizers.newton().init(jnp.ones(4097)),
            "newton: params must have at most 4096 parameters (newton_cg takes more), "
            "got 4097.",
        ),
        (
            lambda: optimizers.newton_cg(radius=0),
            "newton_cg: radius must be positive, got 0.",
        ),
        (
            lambda: optimizers.newton_cg(max_radius=0),
            "newton_cg: max_radius must be positive, got 0.",
        ),
        (
            lambda: optimizers.newton_cg(forcing=1.0),
            "newton_cg: forcing must be in [0, 1), got 1.0.",
        ),
        (
            lambda: optimizers.levenberg_marquardt(damping=0.0),
            "levenberg_marquardt: damping must be positive, got 0.0.",
        ),
        (
            lambda: update(
                optimizers.newton_cg(), predict_fn=jnp.sum, value_fn=jnp.sum
            ),
            "newton_cg: loss_fn must be a function, as in update(grads, state, params, "
            "predict_fn=..., loss_fn=..., **data), got None.",
        ),
        (
            lambda: update(optimizers.newton(), value_fn=lambda x: x),
            "newton: value_fn must return a float, got float64[1].",
        ),
        (
            lambda: update(optimizers.gauss_newton(), residual_fn=lambda x: x > 0),
            "gauss_newton: residual_fn must return float arrays, got bool[1].",
        ),
        (
            lambda: schedules.linear(1.0, 0.0, -1),
            "linear: decay_steps must be non-negative, got -1.",
        ),
        (
            lambda: schedules.inverse_sqrt(1.0, 0),
            "inverse_sqrt: warmup_steps must be positive, got 0.",
        ),
        (
            lambda: schedules.warmup_cosine(1.0, 10, 5),
            "warmup_cosine: decay_steps must be at least warmup_steps, 10, got 5.",
        ),
        (
            lambda: schedules.warmup_linear(1.0, 10, 5),
            "warmup_linear: decay_steps must be at least warmup_steps, 10, got 5.",
        ),
        (
            lambda: schedules.one_cycle(1.0, 10, warmup_fraction=1.5),
            "one_cycle: warmup_fraction must be in [0, 1], got 1.5.",
        ),
        (
            lambda: schedules.cosine(1.0, "10"),
            "cosine: decay_steps must be a number, got '10'.",
        ),
        (
            lambda: schedules.join([schedules.constant(1.0), 0.5], [2]),
            "join: schedules[1] must be a function of the step, got 0.5.",
        ),
        (
            lambda: schedules.join([schedules.constant(1.0)], [2]),
            "join: boundaries must have len(schedules) - 1 = 0 elements, got 1.",
        ),
        (
            lambda: schedules.join([schedules.constant(1.0)] * 3, [5, 2]),
            "join: boundaries[1] must be at least 5, got 2.",
        ),
    ],
)
def test_an_invalid_argument_raises_one_sentence(call, message) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert str(error.value) == message
