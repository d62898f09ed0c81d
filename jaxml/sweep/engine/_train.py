"""A chunk of training steps: the gradients of all models of a block, then the updates.

The training loop carries every leaf of a model flattened: XLA:CPU vectorizes only the
last axis, and a short one not at all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxml._core.types import PyTree
from jaxml.sweep.engine._blocks import (
    ConfigBlock,
    StaticSpec,
    TrainState,
    index,
    map_lanes,
    random_key,
    stack_optimizers,
    take_optimizer,
)
from jaxml.sweep.engine._task import Point, call_with, check_scalars


def train_block(
    spec: StaticSpec,
    optimizers: Sequence[Callable[..., Any]],
    data: PyTree,
    first: Array,
    last: Array,
    configs: ConfigBlock,
    state: TrainState,
) -> tuple[TrainState, Array]:
    """The state after steps first, ..., last - 1, and the sum of the losses over them.

    The arrays are those of a wide block, or else of a group, without the axes before
    the lanes. A wide block takes as many steps as the longest chunk, so that the host
    reads no length; a step after the last changes nothing.
    """
    like = _one_model(state, configs.seeds.ndim)

    def step_fn(step: Array, carry: tuple) -> tuple:
        state, loss_sum = carry
        model_step = _ModelStep(spec, data, like, step)
        state, loss = _train_step(model_step, optimizers, configs, state)
        return state, loss_sum + loss.astype(loss_sum.dtype)

    def wide_step(i: Array, carry: tuple) -> tuple:
        is_step = first + i < last
        new_carry = step_fn(first + i, carry)
        return jax.tree.map(partial(jnp.where, is_step), new_carry, carry)

    carry = _flatten(state, like), jnp.zeros(configs.seeds.shape, jnp.float32)
    if spec.is_wide:
        flat, loss_sum = jax.lax.fori_loop(0, spec.chunk_steps, wide_step, carry)
    else:
        last = jnp.where(configs.active, last, first)
        flat, loss_sum = jax.lax.fori_loop(first, last, step_fn, carry)
    return _unflatten_like(flat, state), loss_sum


class _ModelStep(NamedTuple):
    """One step of one model, whose arrays are flat."""

    spec: StaticSpec
    data: PyTree
    like: TrainState  # the shapes of one model
    step: Array

    def draw_batch(self, seed: Array) -> PyTree:
        """Examples drawn with replacement, by the seed and the step alone."""
        if self.spec.batch_size is None:
            return self.data
        key = jax.random.fold_in(jax.random.fold_in(random_key(seed), 1), self.step)
        num_examples = jax.tree.leaves(self.data)[0].shape[0]
        indices = jax.random.randint(key, (self.spec.batch_size,), 0, num_examples)
        return jax.tree.map(lambda x: x[indices], self.data)

    def objective(
        self, point: Point, seed: Array, batch: PyTree, model_state: PyTree
    ) -> Callable[[PyTree], tuple[Array, PyTree]]:
        """params -> the loss of the batch, and the new state in its present dtypes."""
        task = self.spec.task
        state = _unflatten_like(model_state, self.like.model_state)
        key = jax.random.fold_in(jax.random.fold_in(random_key(seed), 2), self.step)

        def objective(params: PyTree) -> tuple[Array, PyTree]:
            result = call_with(task.loss, params, batch, point, key=key, state=state)
            loss, new_state = result if task.state else (result, None)
            check_scalars("task.loss", {"loss": loss})
            return loss, jax.tree.map(_as_dtype_of, state, new_state)

        return objective

    def gradients(
        self, point: Point, seed: Array, batch: PyTree, params: PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        """The loss, its gradients and the new state of the model."""
        objective = self.objective(point, seed, batch, state)
        params = _unflatten_like(params, self.like.params)
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (loss, new_state), grads = value_and_grad(params)
        return loss, _ravel(grads), _ravel(new_state)

    def update(
        self,
        optimizer: Callable[..., Any],
        opt_state_like: PyTree,
        point: Point,
        seed: Array,
        batch: PyTree,
        state: TrainState,
        loss: Array,
        grads: PyTree,
        model_state: PyTree,
    ) -> TrainState:
        """The next state; the parameters stay as they are from a bad loss on."""

        def value_fn(params: PyTree) -> Array:
            return self.objective(point, seed, batch, state.model_state)(params)[0]

        # Without the barrier XLA removes the reshape to a row.
        grads = jax.tree.map(jax.lax.optimization_barrier, grads)
        grads = _unflatten_like(grads, self.like.params)
        updates, opt_state = optax.with_extra_args_support(optimizer(point)).update(
            grads,
            _unflatten_like(state.opt_states[0], opt_state_like),
            _unflatten_like(state.params, self.like.params),
            value=loss,
            grad=grads,
            value_fn=value_fn,
        )
        is_finite = (state.finite_steps == self.step) & jnp.isfinite(loss)

        def apply_update(x: Array, u: Array) -> Array:
            return jnp.where(is_finite, x + u.astype(x.dtype), x)

        where_finite = partial(jnp.where, is_finite)
        return TrainState(
            jax.tree.map(apply_update, state.params, _ravel(updates)),
            (_ravel(opt_state),),
            state.finite_steps + is_finite.astype(state.finite_steps.dtype),
            jax.tree.map(where_finite, model_state, state.model_state),
        )


def _train_step(
    model_step: _ModelStep,
    optimizers: Sequence[Callable[..., Any]],
    configs: ConfigBlock,
    state: TrainState,
) -> tuple[TrainState, Array]:
    """The state after a step, and the losses."""
    spec, on_group = model_step.spec, partial(_map_group, model_step)
    gradients = partial(on_group, model_step.gradients, spec.models_at_once)
    updates = [
        partial(on_group, partial(model_step.update, optimizer, like), None)
        for optimizer, like in zip(optimizers, model_step.like.opt_states)
    ]
    if not spec.is_wide:
        (update,) = updates
        results = gradients(configs, state.params, state.model_state)
        return update(configs, state, *results), results[0]
    results = jax.vmap(jax.vmap(gradients))(configs, state.params, state.model_state)
    states = [
        jax.vmap(update)(
            index(configs, o), take_optimizer(state, o), *index(results, o)
        )
        for o, update in enumerate(updates)
    ]
    return stack_optimizers(states), results[0]


def _map_group(
    model_step: _ModelStep,
    function: Callable[..., Any],
    at_once: int | None,
    configs: ConfigBlock,
    *trees: PyTree,
) -> Any:
    """`function(point, seed, batch, *trees)` of every model of a group."""
    spec, draw_batch = model_step.spec, model_step.draw_batch
    shared_batch = draw_batch(configs.seeds[0]) if spec.shared_batches else None

    def with_batch(point: Point, seed: Array, *trees: PyTree) -> Any:
        batch = shared_batch if spec.shared_batches else draw_batch(seed)
        return function(point, seed, batch, *trees)

    return map_lanes(with_batch, spec, configs, *trees, at_once=at_once)


def _as_dtype_of(like: Array, x: Any) -> Array:
    return jnp.asarray(x, like.dtype)


def _one_model(state: TrainState, num_axes: int) -> TrainState:
    """The shapes of one model of a block; optimizers have states of their own."""

    def shapes(tree: PyTree, num_axes: int) -> PyTree:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape[num_axes:], x.dtype), tree
        )

    opt_states = shapes(state.opt_states, max(1, num_axes - 1))
    one_model = shapes(state._replace(opt_states=()), num_axes)
    return one_model._replace(opt_states=opt_states)


def _flatten(state: TrainState, like: TrainState) -> TrainState:
    """Every leaf of every model as a row."""

    def flatten(x: Array, one: jax.ShapeDtypeStruct) -> Array:
        return x.reshape(*x.shape[: x.ndim - len(one.shape)], -1)

    return jax.tree.map(flatten, state, like)


def _ravel(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.ravel, tree)


def _unflatten_like(flat: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda row, x: row.reshape(x.shape), flat, like)
