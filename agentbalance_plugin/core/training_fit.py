"""What can only be fitted beside a trained network: how backbones fail together and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agentbalance_plugin.core.dependence import fit_shared
from agentbalance_plugin.core.network import Weights, predict
from agentbalance_plugin.core.prediction import embed
from agentbalance_plugin.core.profiles import Priors
from agentbalance_plugin.core.training_data import Part


def with_dependence(weights: Weights, priors: Priors, val: Sequence[Part]) -> Priors:
    """The priors with what can only be seen beside a trained network, per benchmark."""
    shared, spread = priors.shared.copy(), priors.spread.copy()
    benchmarks = np.array([name.partition("/")[0] for name in priors.categories])
    for part in val:
        vectors = np.concatenate([embed(weights, each) for each in part.features])
        found = predict(
            weights,
            vectors.astype(np.float64),
            part.table.log_odds,
            part.table.log_tokens,
            part.table.features,
            part.table.category_prior,
        )
        of_query = benchmarks[part.category]
        for benchmark in sorted(set(of_query.tolist())):
            rows, columns = np.flatnonzero(of_query == benchmark), benchmarks == benchmark
            if not part.recorded[rows].any():
                # Nothing to fit on: the priors' own stay.
                continue
            shared[columns] = fit_shared(
                found.success[rows], part.correct[rows], part.recorded[rows]
            )
            error = (part.log_tokens(rows) - found.log_tokens[rows])[part.recorded[rows]]
            spread[columns] = error.std()
    return replace(priors, shared=shared, spread=spread)
