"""The table of losses. Truths are loops over examples, written from the paper."""

from cases.losses import (
    binary_and_margin,
    classification,
    distance_map,
    inbatch,
    information,
    linear_head,
    pairs,
    proxies,
    regression,
    segmentation,
    sequences,
)

CASES = [
    *information.CASES,
    *classification.CASES,
    *linear_head.CASES,
    *binary_and_margin.CASES,
    *regression.CASES,
    *pairs.CASES,
    *inbatch.CASES,
    *proxies.CASES,
    *segmentation.CASES,
    *sequences.CASES,
    *distance_map.CASES,
]
