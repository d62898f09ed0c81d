"""The programs that `bench.devices` compiles: a row for each public function."""

import functools
import inspect

import jax
import jax.numpy as jnp

from bench import steps
from bench.aot import batches
from bench.aot.forms import (
    MATRIX,
    SMALL_BATCH,
    Form,
    Program,
    Shape,
    Sizes,
    activation,
    array_arguments,
    distance,
    logistic,
    loss,
    matrix_optimizer,
    optimizer,
    per_channel,
    random_activation,
    residuals,
    row_nll,
    second_order,
    value,
)
from bench.optimizers import MATRICES, OPTIMIZERS
from jaxml import activations, losses, mining

ELEMENTS: Sizes = {"shape": MATRIX}
CLASSES: Sizes = {"batch": (4096,), "classes": (32768,), "outcomes": (32768,)}
VECTORS: Sizes = {"batch": (2**18,), "d": (512,)}
CANDIDATES: Sizes = {"batch": (2**16,), "k": (4,), "d": (512,)}
HEAD: Sizes = {"batch": (8192,), "d": (4096,), "classes": (131072,)}
HEADS: Sizes = {**HEAD, "teacher_d": (4096,)}
IN_BATCH: Sizes = {"n": (32768,), "m": (32768,), "d": (512,)}
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


def step_programs() -> list[Program]:
    """Whole training steps, whose peers are made of optax and jax.nn."""
    models = {
        "mlp_step": steps.mlp(4096, 784, 4096, 4096, 1000),
        "transformer_step": steps.transformer(
            16, 1024, width=1024, blocks=2, words=32768
        ),
    }

    def form(library: steps.Library, model: steps.Model) -> Form:
        step, arrays = steps.step(library, model), steps.arrays(library, model)
        return Form(step, arrays, donated=(0, 1))

    return [
        Program(name, *(form(library, model) for library in steps.LIBRARIES.values()))
        for name, model in models.items()
    ]


@functools.cache
def all_programs() -> list[Program]:
    return [
        *loss_programs(),
        *mining_programs(),
        *activation_programs(),
        *optimizer_programs(),
        *step_programs(),
    ]
