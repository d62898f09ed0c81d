"""The table of losses. Truths are loops over examples, written from the paper."""

from cases.losses import (
    binary_and_margin,
    classification,
    distance_map,
    inbatch,
    information,
    pairs,
    proxies,
    regression,
    segmentation,
)

CASES = [
    *information.CASES,
    *classification.CASES,
    *binary_and_margin.CASES,
    *regression.CASES,
    *pairs.CASES,
    *inbatch.CASES,
    *proxies.CASES,
    *segmentation.CASES,
    *distance_map.CASES,
]
