"""Losses: the truth is one example at a time, written from the definition."""

from cases.losses import (
    classification,
    geometry,
    inbatch,
    information,
    margin,
    regression,
    segmentation,
)

CASES = [
    *information.CASES,
    *classification.CASES,
    *margin.CASES,
    *regression.CASES,
    *geometry.CASES,
    *inbatch.CASES,
    *segmentation.CASES,
]
