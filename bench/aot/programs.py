"""The programs that `bench.devices` compiles: a row for each public function.

A loss is compiled with its gradient, an activation or a distance with its pullback, an
optimizer as a step that donates its state. The shapes of the arrays follow from the
annotations of the function and from the sizes of their axes.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bench.aot import batches, peers
from bench.aot.hardware import Layout
from bench.optimizers import LEARNING_RATE, MATRICES, OPTIMIZERS, Peers, shapes
from jaxml import activations, losses, mining, optimizers

Sizes = Mapping[str, tuple[int, ...]]
Shape = jax.ShapeDtypeStruct

MATRIX = (4096, 32768)
ELEMENTS: Sizes = {"shape": MATRIX}
CLASSES: Sizes = {"batch": (4096,), "classes": (32768,), "outcomes": (32768,)}
VECTORS: Sizes = {"batch": (2**18,), "d": (512,)}
CANDIDATES: Sizes = {"batch": (2**16,), "k": (4,), "d": (512,)}
HEAD: Sizes = {"batch": (8192,), "d": (4096,), "classes": (131072,)}
HEADS: Sizes = {**HEAD, "teacher_d": (4096,)}
IN_BATCH: Sizes = {"n": (32768,), "m": (32768,), "d": (512,)}
SMALL_BATCH: Sizes = {"n": (4096,), "m": (4096,), "d": (512,)}
PROXIES: Sizes = {"batch": (4096,), "n": (4096,), "d": (512,), "classes": (131072,)}
CENTERS: Sizes = {"batch": (4096,), "d": (512,), "classes": (32768,), "k": (4,)}
VIEWS: Sizes = {"n": (4096,), "d": (8192,)}
IMAGES = (8, 512, 512, 4)
PIXELS: Sizes = {"pixels": (8, 1024, 1024), "classes": (19,)}
SEQUENCES: Sizes = {
    "batch": (32,),
    "frames": (1024,),
    "classes": (1024,),
    "length": (128,),
}
ROUTER: Sizes = {"tokens": (2**18,), "experts": (128,)}
ENSEMBLES: Sizes = {"batch": (2**18,), "m": (50,)}
MEMBERS: Sizes = {"batch": (2,), "m": (8192,), "d": (64,)}
TRIPLETS: Sizes = {"n": (512,), "m": (512,)}
PARAMETERS = 2**26
DTYPES = {"Integer": jnp.int32, "Bool": jnp.bool_}
"""Of arrays that are not floats, by jaxtyping's name of their kind."""


class Form(NamedTuple):
    """A function of arrays, to be compiled."""

    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    donated: tuple[int, ...] = ()


class Program(NamedTuple):
    name: str
    ours: Form
    peer: Form | None = None
    layout: Layout | None = None
    """How the arrays lie on several devices; None for one device."""


# How a row is made


def array_arguments(
    function: Callable[..., Any], sizes: Sizes, dtype: Any
) -> dict[str, Shape]:
    """The required arrays of a public function, by name."""
    arrays = {}
    for name, parameter in inspect.signature(function).parameters.items():
        axes = getattr(parameter.annotation, "dim_str", None)
        if axes is None or parameter.default is not parameter.empty:
            continue
        named = (sizes[axis.removeprefix("*")] for axis in axes.split())
        shape = tuple(itertools.chain.from_iterable(named))
        kind = parameter.annotation.__name__.split("[")[0]
        arrays[name] = Shape(
            shape, {"Integer": "int32", "Bool": "bool"}.get(kind, dtype)
        )
    return arrays


@functools.cache
def value_and_grad(
    function: Callable[..., Any], argnums: tuple[int, ...]
) -> Callable[..., Any]:
    """The mean of a loss, and its gradient. A loss may return several arrays."""

    def mean(*arrays: Any) -> Any:
        return sum(map(jnp.mean, jax.tree.leaves(function(*arrays))))

    return jax.value_and_grad(mean, argnums)


@functools.cache
def value_and_pullback(function: Callable[..., Any]) -> Callable[..., Any]:
    """The result, and the gradient for its cotangent, which is the last array."""

    def both(*arrays: Any) -> Any:
        *primals, ct = arrays
        value, pullback = jax.vjp(function, *primals)
        return value, pullback(ct)

    return both


def row_name(function: str, suffix: str) -> str:
    return f"{function}, {suffix}" if suffix else function


def loss(
    name: str,
    sizes: Sizes,
    *,
    argnums: tuple[int, ...] = (0,),
    dtype: Any = jnp.bfloat16,
    suffix: str = "",
    optional: tuple[str, ...] = (),
    transform: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f,
    **keywords: Any,
) -> Program:
    """A loss and its gradient, after a transformation of the loss of its arrays.

    `optional` arguments have the shape of the first array.
    """
    function = getattr(losses, name)
    arguments = array_arguments(function, sizes, dtype)
    arguments |= dict.fromkeys(optional, next(iter(arguments.values())))
    arrays = tuple(arguments.values())

    def ours(*arrays: Any) -> Any:
        return function(**dict(zip(arguments, arrays)), **keywords)

    peer = peers.LOSSES.get(name)
    return Program(
        row_name(name, suffix),
        Form(value_and_grad(transform(ours), argnums), arrays),
        Form(value_and_grad(peer, argnums), arrays) if peer else None,
    )


def pullback(
    name: str,
    function: Callable[..., Any],
    arrays: tuple[Shape, ...],
    peer: Callable[..., Any] | None = None,
) -> Program:
    ct = jax.eval_shape(function, *arrays)
    arrays = (*arrays, ct)
    return Program(
        name,
        Form(value_and_pullback(function), arrays),
        Form(value_and_pullback(peer), arrays) if peer else None,
    )


def activation(name: str, **keywords: Any) -> Program:
    function = functools.partial(getattr(activations, name), **keywords)
    x = Shape(MATRIX, jnp.bfloat16)
    return pullback(name, function, (x,), peers.ACTIVATIONS.get(name))


def distance(name: str, dtype: Any = jnp.float32, **keywords: Any) -> Program:
    function = getattr(mining, name)
    arrays = array_arguments(function, SMALL_BATCH, dtype)
    return pullback(name, functools.partial(function, **keywords), (*arrays.values(),))


def value(function: Callable[..., Any], sizes: Sizes, **keywords: Any) -> Program:
    """A function that has no gradient."""
    arrays = array_arguments(function, sizes, jnp.float32)
    return Program(
        function.__name__,
        Form(functools.partial(function, **keywords), (*arrays.values(),)),
    )


def optimizer_step(optimizer: Any, params: Any) -> Form:

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(optimizer.init, params)
    return Form(step, (params, state, params), donated=(0, 1))


def optimizer(name: str) -> Program:
    return optimizer_program(name, OPTIMIZERS[name], Shape((PARAMETERS,), jnp.float32))


def matrix_optimizer(name: str) -> Program:
    """A step for the weights of four layers of width 2048."""
    params = [Shape(shape, jnp.float32) for shape in shapes(2048)[:16]]
    return optimizer_program(name, MATRICES[name], params)


def optimizer_program(name: str, known: Peers, params: Any) -> Program:
    peer = known.optax and optimizer_step(known.optax(LEARNING_RATE), params)
    return Program(name, optimizer_step(known.ours(LEARNING_RATE), params), peer)


def second_order(name: str, **functions: Callable[..., Any]) -> Program:
    """A step for 256 parameters and 8192 examples."""
    optimizer = getattr(optimizers, name)()
    params, features = Shape((256,), jnp.float32), Shape((8192, 256), jnp.float32)

    def step(params: Any, state: Any, grads: Any, features: Any) -> Any:
        updates, state = optimizer.update(
            grads, state, params, features=features, **functions
        )
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(optimizer.init, params)
    return Program(name, Form(step, (params, state, params, features), donated=(0, 1)))


# Functions that some rows are given


def row_nll(similarities: Any, index: Any) -> Any:
    return jax.nn.logsumexp(similarities / 0.1) - similarities[index] / 0.1


def logistic(x: Any, features: Any) -> Any:
    return jnp.sum(jax.nn.softplus(features @ x))


def residuals(x: Any, features: Any) -> Any:
    return jnp.tanh(features @ x) - 0.5


def per_channel(name: str) -> Program:
    """An activation with a learned number for each channel."""
    x, learned = (Shape(shape, jnp.bfloat16) for shape in (MATRIX, MATRIX[1:]))
    return pullback(name, getattr(activations, name), (x, learned))


def random_activation(name: str) -> Program:
    function = functools.partial(getattr(activations, name), jax.random.key(0))
    return pullback(name, function, (Shape(MATRIX, jnp.bfloat16),))


# The rows


def loss_programs() -> list[Program]:
    pair, triplet = (0, 1), (0, 1, 2)
    f32 = {"suffix": "f32", "dtype": jnp.float32}
    both = {"n = 4096": SMALL_BATCH, "n = 32768": IN_BATCH}.items()
    return [
        loss("mean", ELEMENTS),
        loss("entropy", CLASSES),
        loss("kl_divergence", CLASSES),
        loss("js_divergence", CLASSES),
        loss("nll_loss", CLASSES),
        loss("cross_entropy", CLASSES),
        loss("cross_entropy", CLASSES, **f32),
        loss("soft_cross_entropy", CLASSES),
        loss("smooth_labels", CLASSES, label_smoothing=0.1),
        loss("focal_loss", CLASSES),
        loss("poly_loss", CLASSES),
        loss("generalized_cross_entropy", CLASSES),
        loss("sparsemax_loss", CLASSES),
        loss("linear_cross_entropy", HEAD, argnums=pair),
        loss("linear_cross_entropy", HEAD, argnums=pair, **f32),
        loss("linear_log_prob", HEAD, argnums=pair),
        loss("linear_kl_divergence", HEADS, argnums=pair),
        loss("linear_js_divergence", HEADS, argnums=pair),
        loss("binary_cross_entropy", ELEMENTS),
        loss("binary_cross_entropy_with_logits", ELEMENTS),
        loss("binary_focal_loss", ELEMENTS),
        loss("asymmetric_loss", ELEMENTS),
        loss("ctc_loss", SEQUENCES),
        loss("ctc_loss", SEQUENCES, **f32),
        loss("load_balance_loss", ROUTER, top_k=8),
        loss("crps_loss", ENSEMBLES),
        loss("energy_score", MEMBERS, **f32),
        loss("gaussian_crps_loss", ELEMENTS, scale=1.0),
        loss("byol_loss", VECTORS),
        loss("dino_loss", CLASSES),
        loss("hinge_loss", ELEMENTS),
        loss("squared_hinge_loss", ELEMENTS),
        loss("logistic_loss", ELEMENTS),
        loss("perceptron_loss", ELEMENTS),
        loss("multiclass_hinge_loss", CLASSES),
        loss("multi_margin_loss", CLASSES),
        loss("multilabel_margin_loss", CLASSES),
        loss("multilabel_soft_margin_loss", CLASSES),
        loss("squared_error", ELEMENTS),
        loss("absolute_error", ELEMENTS),
        loss("huber_loss", ELEMENTS),
        loss("smooth_l1_loss", ELEMENTS),
        loss("log_cosh_loss", ELEMENTS),
        loss("quantile_loss", ELEMENTS, quantile=0.9),
        loss("poisson_nll_loss", ELEMENTS),
        loss("poisson_loss", ELEMENTS),
        loss("gaussian_nll_loss", ELEMENTS, argnums=(0, 2), optional=("variance",)),
        loss("cosine_distance", VECTORS),
        loss("squared_log_error", ELEMENTS),
        loss("absolute_percentage_error", ELEMENTS),
        loss("contrastive_loss", VECTORS, argnums=pair),
        loss("cosine_embedding_loss", VECTORS, argnums=pair),
        loss("margin_ranking_loss", ELEMENTS, argnums=pair),
        loss("triplet_loss", VECTORS, argnums=triplet),
        loss("squared_triplet_loss", VECTORS, argnums=triplet),
        loss("soft_triplet_loss", VECTORS, argnums=triplet),
        loss("tuplet_loss", CANDIDATES, argnums=triplet),
        loss("embedding_penalty", VECTORS),
        loss("in_batch", IN_BATCH, argnums=pair, row_loss=row_nll),
        loss("info_nce", IN_BATCH, argnums=pair),
        loss("info_nce", IN_BATCH, argnums=pair, **f32),
        loss("n_pair_loss", IN_BATCH, argnums=pair),
        loss("clip_loss", IN_BATCH, argnums=pair),
        loss("siglip_loss", IN_BATCH, argnums=pair, scale=10.0, bias=-10.0),
        loss("nt_xent", IN_BATCH),
        loss("supcon_loss", IN_BATCH),
        loss("multi_similarity_loss", IN_BATCH),
        loss("circle_loss", IN_BATCH),
        loss("smooth_ap_loss", SMALL_BATCH),
        *(loss("angular_loss", sizes, suffix=n) for n, sizes in both),
        loss("batch_contrastive_loss", IN_BATCH),
        loss("margin_loss", IN_BATCH),
        *(loss("lifted_structure_loss", sizes, suffix=n) for n, sizes in both),
        loss("nca_loss", IN_BATCH),
        loss("batch_hard_triplet_loss", IN_BATCH),
        loss("batch_hard_triplet_loss", IN_BATCH, **f32),
        *(loss("batch_semihard_triplet_loss", sizes, suffix=n) for n, sizes in both),
        *(loss("batch_all_triplet_loss", sizes, suffix=n) for n, sizes in both),
        loss("vicreg_loss", VIEWS, argnums=pair),
        loss("barlow_twins_loss", VIEWS, argnums=pair),
        loss("normalized_softmax_loss", PROXIES, argnums=pair),
        loss("cosface_loss", PROXIES, argnums=pair),
        loss("arcface_loss", PROXIES, argnums=pair),
        loss("proxy_nca_loss", PROXIES, argnums=pair),
        loss("proxy_anchor_loss", PROXIES, argnums=pair),
        loss("soft_triple_loss", CENTERS, argnums=pair),
        loss("dice_loss", PIXELS),
        loss("generalized_dice_loss", PIXELS),
        loss("tversky_loss", PIXELS),
        loss("focal_tversky_loss", PIXELS),
        loss("jaccard_loss", PIXELS),
        loss("sensitivity_specificity_loss", PIXELS),
        loss("matthews_loss", PIXELS),
        value(losses.present, PIXELS, num_classes=19),
        loss("lovasz_hinge_loss", PIXELS),
        loss("lovasz_softmax_loss", PIXELS),
        loss("cldice_loss", PIXELS, iterations=10),
        loss("boundary_loss", PIXELS),
        Program("distance_map", Form(losses.distance_map, (Shape(IMAGES, "bool"),))),
    ]


def mining_programs() -> list[Program]:
    key = jax.random.key(0)
    distance_weighted = functools.partial(mining.distance_weighted, key, dimension=512)
    matrix = array_arguments(mining.hard_pairs, SMALL_BATCH, jnp.float32)
    triplets = mining.easy_triplets, mining.semihard_triplets, mining.hard_triplets
    return [
        distance("squared_euclidean"),
        distance("euclidean"),
        distance("lp", p=3.0),
        distance("cosine_similarity"),
        distance("dot_product"),
        value(mining.positives, SMALL_BATCH),
        value(mining.negatives, SMALL_BATCH),
        value(mining.has_positive, SMALL_BATCH),
        value(mining.has_negative, SMALL_BATCH),
        value(mining.hard_pairs, SMALL_BATCH),
        value(mining.pair_margin, SMALL_BATCH),
        value(mining.multi_similarity_pairs, SMALL_BATCH),
        Program("distance_weighted", Form(distance_weighted, (*matrix.values(),))),
        *(value(triplet, TRIPLETS) for triplet in triplets),
        *(Program(name, Form(*form)) for name, form in batches.forms().items()),
    ]


def activation_programs() -> list[Program]:
    keywords = {"threshold": {"threshold": 1.0, "value": 0.0}, "maxout": {"pieces": 2}}
    special = {
        **dict.fromkeys(("prelu", "snake"), per_channel),
        **dict.fromkeys(("rrelu", "stochastic_gelu"), random_activation),
    }
    return [
        special[name](name)
        if name in special
        else activation(name, **keywords.get(name, {}))
        for name, function in vars(activations).items()
        if inspect.isfunction(function) and name != "prelu_init"
    ]


def optimizer_programs() -> list[Program]:
    return [
        *map(optimizer, OPTIMIZERS),
        *map(matrix_optimizer, MATRICES),
        second_order("newton", value_fn=logistic),
        second_order("newton_cg", value_fn=logistic),
        second_order("gauss_newton", residual_fn=residuals),
        second_order("levenberg_marquardt", residual_fn=residuals),
    ]


@functools.cache
def all_programs() -> list[Program]:
    return [
        *loss_programs(),
        *mining_programs(),
        *activation_programs(),
        *optimizer_programs(),
    ]
