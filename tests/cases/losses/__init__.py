"""Losses: the truth is one example at a time, written from the definition."""

from cases.losses import (
    binary_and_margin,
    classification,
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
]
