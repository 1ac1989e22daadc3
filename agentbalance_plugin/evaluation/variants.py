"""The same suite under other catalogs and other figures: what the results hang on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from agentbalance_plugin.backbone import Backbone, Catalog
from agentbalance_plugin.core.traces import TraceSet

SCALES = (0.5, 2.0)


def catalogs(suite: TraceSet, public: TraceSet) -> dict[str, TraceSet]:
    """The suite with more and more backbones to choose from.

    Args:
        suite: with its candidates.
        public: the same benchmarks with every backbone that was recorded.
    """
    more = [name for name in public.backbones if name not in suite.backbones]
    order = [*suite.candidates, *suite.unseen, *more]
    sizes = {
        "candidates": len(suite.candidates),
        "with unseen ones": len(suite.candidates) + len(suite.unseen),
        "25": min(25, len(order)),
        "all": len(order),
    }
    found: dict[str, TraceSet] = {}
    seen: set[int] = set()
    for label, size in sizes.items():
        if size in seen:
            continue
        seen.add(size)
        traces = replace(public, reference=suite.reference, candidates=tuple(order[:size]))
        found[f"{label} ({size})" if not label.isdigit() else label] = traces
    return found


def sensitivities(traces: TraceSet) -> dict[str, TraceSet]:
    """The suite with nominal figures halved and doubled; a figure that nobody has is left out.

    Methods and budgets know the changed figures, as they would if these were the true ones.
    """
    changes: dict[str, Callable[[Backbone, float], Backbone]] = {
        "nominal prices": _prices,
        "nominal tokens per second": _speeds,
        "hidden reasoning tokens": _hidden,
    }
    found: dict[str, TraceSet] = {}
    for label, change in changes.items():
        for scale in SCALES:
            catalog = Catalog(change(backbone, scale) for backbone in traces.catalog.values())
            if any(catalog[name] != traces.catalog[name] for name in traces.candidates):
                found[f"{label} x {scale:g}"] = replace(traces, catalog=catalog)
    return found


def _prices(backbone: Backbone, scale: float) -> Backbone:
    if backbone.price_source != "nominal":
        return backbone
    factor = Decimal(str(scale))
    # Prices have at most six decimals.
    step = Decimal("0.000001")
    return replace(
        backbone,
        price_in_usd_per_mtok=(backbone.price_in_usd_per_mtok * factor).quantize(step),
        price_out_usd_per_mtok=(backbone.price_out_usd_per_mtok * factor).quantize(step),
    )


def _speeds(backbone: Backbone, scale: float) -> Backbone:
    if backbone.speed_source != "nominal" or backbone.tokens_per_s is None:
        return backbone
    return replace(backbone, tokens_per_s=backbone.tokens_per_s * scale)


def _hidden(backbone: Backbone, scale: float) -> Backbone:
    hidden = {name: round(tokens * scale) for name, tokens in backbone.hidden_tokens.items()}
    return replace(backbone, hidden_tokens=hidden)
