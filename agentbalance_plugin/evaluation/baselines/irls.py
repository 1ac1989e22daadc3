"""Ridge logistic regression by iteratively reweighted least squares (McCullagh, Nelder, 1989)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ROUNDS = 25
_CLOSE = 1e-6


def fit_logistic(
    x: FloatArray, y: FloatArray, ridge: float, weight: FloatArray | None = None
) -> FloatArray:
    """Coefficients [K] that make sigmoid(x @ w) likeliest less ridge / 2 * |w|^2.

    Args:
        x: [N, K]; its first column is taken for the intercept and not penalised.
        y: [N] in [0, 1].
        weight: [N] of each row; None: 1.
    """
    shares = np.ones(len(y)) if weight is None else weight
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-6
    w = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        rate = probability(x, w)
        curve = shares * np.maximum(rate * (1.0 - rate), 1e-6)
        gradient = x.T @ (shares * (y - rate)) - penalty * w
        step = np.linalg.solve((x * curve[:, None]).T @ x + np.diag(penalty), gradient)
        # A long step overshoots where classes can be told apart: it is cut.
        w = w + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < _CLOSE:
            break
    return w


def probability(x: FloatArray, w: FloatArray) -> FloatArray:
    """sigmoid(x @ w)."""
    return 1.0 / (1.0 + np.exp(-np.clip(x @ w, -30.0, 30.0)))
