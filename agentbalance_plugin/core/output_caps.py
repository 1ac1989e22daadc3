"""How long each backbone may answer: up to where a call is worth most at the price."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agentbalance_plugin.core.limits import USEFUL_TOKENS
from agentbalance_plugin.core.prediction import Outlook
from agentbalance_plugin.core.profiles import ProfileTable

FloatArray = NDArray[np.float64]

# Of success: a cap that cuts nothing gains as much where shares of categories add up to nearly one.
_ROUNDING = 1e-9


def with_caps(
    outlook: Outlook, table: ProfileTable, price_usd: FloatArray, second_price: FloatArray
) -> tuple[Outlook, FloatArray]:
    """Cap each backbone's replies where one call alone is worth most.

    Args:
        table: of the same backbones.
        price_usd, second_price: [N] success that a US dollar and a second must buy.

    Returns:
        (the outlook under these caps, [N, B] caps in output tokens, hidden ones included; infinity
        for none).
    """
    tasks, size = outlook.log_tokens.shape
    levels = table.cuts.shape[2]
    predicted = outlook.predicted
    if not levels or not (price_usd.any() or second_price.any()):
        return outlook, np.full((tasks, size), np.inf)
    cuts = outlook.category @ table.cuts.reshape(len(table.cuts), -1)
    multiple, right, tokens = np.moveaxis(cuts.reshape(tasks, size, levels, 3), -1, 0)
    mean = np.exp(outlook.log_tokens + (outlook.sigma * outlook.sigma)[:, None] / 2)
    # Tokens that a cap saves, on average; what the catalog's limit cuts off can't be saved again.
    whole = np.minimum(mean + outlook.hidden_tokens, table.max_output)
    billed = mean[..., None] * tokens + outlook.hidden_tokens[..., None]
    saved = np.maximum(whole[..., None] - billed, 0.0)
    success = 1.0 / (1.0 + np.exp(-predicted.log_odds))
    worth_of_token = price_usd[:, None] * table.price_out
    worth_of_token = worth_of_token + second_price[:, None] / table.tokens_per_s
    gain = saved * worth_of_token[..., None] - success[..., None] * (1.0 - right)
    best = gain.argmax(axis=2)[..., None]

    def chosen(values: FloatArray) -> FloatArray:
        return np.take_along_axis(values, best, axis=2)[..., 0]

    pays = gain.max(axis=2) > _ROUNDING
    saved = np.where(pays, chosen(saved), 0.0)
    success = np.where(pays, success * chosen(right), success).clip(1e-6, 1.0 - 1e-6)
    caps = np.ceil(np.maximum(chosen(multiple) * mean, USEFUL_TOKENS) + outlook.hidden_tokens)
    capped = replace(
        predicted,
        log_odds=np.where(pays, np.log(success / (1.0 - success)), predicted.log_odds),
        cost_usd=predicted.cost_usd - saved * table.price_out,
        latency_s=predicted.latency_s - saved / table.tokens_per_s,
    )
    return replace(outlook, predicted=capped), np.where(pays, caps, np.inf)
