"""How often each backbone is right in each category, from one split, shrunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.traces import TraceSet

FloatArray = NDArray[np.float64]

# Pseudo-answers that pull a category's rate to the backbone's rate on the whole benchmark: few
# categories have fewer than forty training questions, so this only tames the small ones.
_SHRINKAGE = 8.0


@dataclass(frozen=True)
class Abilities:
    """Rates of right answers.

    Args:
        rate: [C, B], strictly between 0 and 1; C as in `TraceSet.categories`.
        answered: [C, B] how many answers the rate rests on.
    """

    rate: FloatArray
    answered: NDArray[np.int64]

    @property
    def log_odds(self) -> FloatArray:
        """[C, B] log(rate / (1 - rate))."""
        return np.log(self.rate) - np.log1p(-self.rate)


def abilities(traces: TraceSet, split: str = "train") -> Abilities:
    """Rates per category and backbone from all recorded samples of one split.

    Where the traces have no such split nothing is known: every rate is one half, so nobody's
    answer counts more than another's.
    """
    shape = (len(traces.categories), len(traces.backbones))
    answered = np.zeros(shape, dtype=np.int64)
    right = np.zeros(shape, dtype=np.int64)
    if split in traces.splits:
        rows = traces.positions(split)
        correct = traces.samples.correct[rows]
        np.add.at(answered, traces.category[rows], (correct >= 0).sum(axis=2))
        np.add.at(right, traces.category[rows], (correct == 1).sum(axis=2))
    to_benchmark = benchmark_of_category(traces)
    overall = _smooth(sum_over(right, to_benchmark), sum_over(answered, to_benchmark))
    rate = (right + _SHRINKAGE * overall[to_benchmark]) / (answered + _SHRINKAGE)
    return Abilities(rate, answered)


def benchmark_of_category(traces: TraceSet) -> NDArray[np.int64]:
    """[C] position of each category's benchmark in `TraceSet.benchmarks`."""
    position = {name: index for index, name in enumerate(traces.benchmarks)}
    found = {query.category: position[query.benchmark] for query in traces.queries}
    return np.array([found[name] for name in traces.categories], dtype=np.int64)


def sum_over(values: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of [n, B] summed by group: [groups, B]."""
    sums = np.zeros((int(group.max(initial=-1)) + 1, values.shape[1]), dtype=np.int64)
    np.add.at(sums, group, values)
    return sums


def _smooth(right: NDArray[np.int64], answered: NDArray[np.int64]) -> FloatArray:
    """Rule of succession, which keeps log-odds finite."""
    return (right + 1.0) / (answered + 2.0)
