"""Losses for classification, regression, metric learning and segmentation.

The usual form is

    loss(predicted, true, *, hyperparameters)  ->  one value per example

A loss reduces over its event (the classes, the pixels, the features of an embedding)
and keeps all other axes; each module says which axes its losses consume. `mean` reduces
over the examples. Hyperparameters may be traced; a Python number out of its range
raises a ValueError. A loss with a `where` argument ignores the entries where it is
False: they may be NaN and change neither the result nor a gradient.
"""

from jaxml.losses._mean import (
    mean as mean,
)
from jaxml.losses._information import (
    entropy as entropy,
    kl_divergence as kl_divergence,
    js_divergence as js_divergence,
    nll_loss as nll_loss,
)
from jaxml.losses._cross_entropy import (
    cross_entropy as cross_entropy,
    soft_cross_entropy as soft_cross_entropy,
    smooth_labels as smooth_labels,
)
from jaxml.losses._classification import (
    focal_loss as focal_loss,
    poly_loss as poly_loss,
    generalized_cross_entropy as generalized_cross_entropy,
    sparsemax_loss as sparsemax_loss,
)
from jaxml.losses._linear_head import (
    linear_cross_entropy as linear_cross_entropy,
    linear_log_prob as linear_log_prob,
    LogProb as LogProb,
)
from jaxml.losses._linear_divergences import (
    linear_kl_divergence as linear_kl_divergence,
    linear_js_divergence as linear_js_divergence,
)
from jaxml.losses._binary import (
    binary_cross_entropy as binary_cross_entropy,
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
    binary_focal_loss as binary_focal_loss,
    asymmetric_loss as asymmetric_loss,
)
from jaxml.losses._margin import (
    hinge_loss as hinge_loss,
    squared_hinge_loss as squared_hinge_loss,
    logistic_loss as logistic_loss,
    perceptron_loss as perceptron_loss,
    multiclass_hinge_loss as multiclass_hinge_loss,
    multi_margin_loss as multi_margin_loss,
    multilabel_margin_loss as multilabel_margin_loss,
    multilabel_soft_margin_loss as multilabel_soft_margin_loss,
)
from jaxml.losses._regression import (
    squared_error as squared_error,
    absolute_error as absolute_error,
    huber_loss as huber_loss,
    smooth_l1_loss as smooth_l1_loss,
    log_cosh_loss as log_cosh_loss,
    quantile_loss as quantile_loss,
    cosine_distance as cosine_distance,
    squared_log_error as squared_log_error,
    absolute_percentage_error as absolute_percentage_error,
)
from jaxml.losses._likelihood import (
    poisson_nll_loss as poisson_nll_loss,
    poisson_loss as poisson_loss,
    gaussian_nll_loss as gaussian_nll_loss,
)
from jaxml.losses._ctc import (
    ctc_loss as ctc_loss,
)
from jaxml.losses._experts import (
    load_balance_loss as load_balance_loss,
)
from jaxml.losses._scoring_rules import (
    crps_loss as crps_loss,
    energy_score as energy_score,
    gaussian_crps_loss as gaussian_crps_loss,
)
from jaxml.losses.metric._pairs import (
    contrastive_loss as contrastive_loss,
    cosine_embedding_loss as cosine_embedding_loss,
    margin_ranking_loss as margin_ranking_loss,
    triplet_loss as triplet_loss,
    squared_triplet_loss as squared_triplet_loss,
    soft_triplet_loss as soft_triplet_loss,
    tuplet_loss as tuplet_loss,
    embedding_penalty as embedding_penalty,
)
from jaxml.losses.metric._per_anchor import (
    in_batch as in_batch,
)
from jaxml.losses.metric._angular import angular_loss as angular_loss
from jaxml.losses.metric._contrastive import (
    info_nce as info_nce,
    n_pair_loss as n_pair_loss,
    clip_loss as clip_loss,
    siglip_loss as siglip_loss,
)
from jaxml.losses.metric._similarity import (
    nt_xent as nt_xent,
    supcon_loss as supcon_loss,
    multi_similarity_loss as multi_similarity_loss,
    circle_loss as circle_loss,
    smooth_ap_loss as smooth_ap_loss,
)
from jaxml.losses.metric._distance import (
    batch_contrastive_loss as batch_contrastive_loss,
    margin_loss as margin_loss,
    lifted_structure_loss as lifted_structure_loss,
    nca_loss as nca_loss,
)
from jaxml.losses.metric._triplets import (
    batch_hard_triplet_loss as batch_hard_triplet_loss,
    batch_semihard_triplet_loss as batch_semihard_triplet_loss,
    batch_all_triplet_loss as batch_all_triplet_loss,
)
from jaxml.losses.metric._redundancy import (
    vicreg_loss as vicreg_loss,
    barlow_twins_loss as barlow_twins_loss,
)
from jaxml.losses.metric._self_distillation import (
    byol_loss as byol_loss,
    dino_loss as dino_loss,
)
from jaxml.losses.metric._proxies import (
    normalized_softmax_loss as normalized_softmax_loss,
    cosface_loss as cosface_loss,
    arcface_loss as arcface_loss,
    proxy_nca_loss as proxy_nca_loss,
    proxy_anchor_loss as proxy_anchor_loss,
    soft_triple_loss as soft_triple_loss,
)
from jaxml.losses.segmentation._regions import (
    dice_loss as dice_loss,
    generalized_dice_loss as generalized_dice_loss,
    tversky_loss as tversky_loss,
    focal_tversky_loss as focal_tversky_loss,
    jaccard_loss as jaccard_loss,
)
from jaxml.losses.segmentation._confusion import (
    sensitivity_specificity_loss as sensitivity_specificity_loss,
    matthews_loss as matthews_loss,
    present as present,
)
from jaxml.losses.segmentation._lovasz import (
    lovasz_hinge_loss as lovasz_hinge_loss,
    lovasz_softmax_loss as lovasz_softmax_loss,
)
from jaxml.losses.segmentation._contour import (
    cldice_loss as cldice_loss,
    boundary_loss as boundary_loss,
)
from jaxml.losses.segmentation._distance_map import (
    distance_map as distance_map,
)
