"""Samples to figures: order statistics, and how sure a comparison is."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 1000
OUTSIDE = 0.025  # on each side of an interval


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share of all does not exceed (nearest rank): always
    one that was measured."""
    if not samples:
        raise ValueError("no samples")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def median(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    middle = len(ordered) // 2
    if not ordered:
        raise ValueError("no samples")
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class Summary:
    n: int
    min: float
    p50: float
    p90: float
    p99: float


def summarize(samples: Sequence[float]) -> Summary:
    return Summary(
        len(samples),
        min(samples),
        median(samples),
        percentile(samples, 0.9),
        percentile(samples, 0.99),
    )


@dataclass(frozen=True)
class Interval:
    """An estimate, and where it lies in 95 of 100 resamplings."""

    value: float
    low: float
    high: float


def compare(
    ours: Sequence[float],
    floor: Sequence[float],
    measure: Callable[[float, float], float],
    resamples: int = RESAMPLES,
) -> Interval:
    """`measure` of both medians. ours[i] and floor[i] were measured one after the other, so rounds
    are resampled, not samples: what slowed a round slowed both."""
    if len(ours) != len(floor):
        raise ValueError("rounds are pairs")
    chance = random.Random(1)  # noqa: S311 - the same samples give the same interval
    rounds = range(len(ours))
    found = []
    for _ in range(resamples):
        drawn = chance.choices(rounds, k=len(rounds))
        found.append(measure(median([ours[i] for i in drawn]), median([floor[i] for i in drawn])))
    value = measure(median(ours), median(floor))
    return Interval(value, percentile(found, OUTSIDE), percentile(found, 1 - OUTSIDE))


def ratio(ours: Sequence[float], floor: Sequence[float]) -> Interval:
    return compare(ours, floor, lambda a, b: a / b)


def difference(ours: Sequence[float], floor: Sequence[float]) -> Interval:
    return compare(ours, floor, lambda a, b: a - b)
