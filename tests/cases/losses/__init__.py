"""Losses: the truth is one example at a time, written from the definition."""

from cases.losses import (
    classification,
    inbatch,
    information,
    margin,
    pairs,
    proxies,
    regression,
    segmentation,
)

CASES = [
    *information.CASES,
    *classification.CASES,
    *margin.CASES,
    *regression.CASES,
    *pairs.CASES,
    *inbatch.CASES,
    *proxies.CASES,
    *segmentation.CASES,
]
