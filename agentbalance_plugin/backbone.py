"""LLM backbones: what they cost, how fast they are, what they can do, how to reach them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, Literal, cast

CAPABILITIES = frozenset({"text", "tools", "json", "structured_output", "vision"})

DEFAULT_MAX_OUTPUT_TOKENS = 4_096

USUAL_TOKENS = 150.0
"""Visible tokens of an answer that is reasoned in words, where nothing else is known."""

REASONED_TOKENS = 20.0
"""An answer of fewer was not reasoned in words."""

# Of a prompt, where there is a tokenizer: English has 0.23, code and JSON up to 0.4.
_TOKENS_PER_BYTE = 0.4

# Decimals of the usual precision still count the pico-dollars of a price below it.
_PRICE_BOUND = 10**15

Reasoning = Literal["no", "hybrid", "yes"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a backbone that is called live.

    Args:
        model: the model name sent with each call.
        base_url: an OpenAI-compatible endpoint; None is the OpenAI client's own default.
        api_key_env: the environment variable that holds the key. The key itself is never stored.
        output_cap: the request field that caps output tokens; newer OpenAI reasoning models only
            take `max_completion_tokens`.
        component: instead of the above, an AutoGen model-client component
            ({"provider": ..., "config": ...}), for every provider that AutoGen supports.
    """

    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    output_cap: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    component: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("model", "base_url", "api_key_env"):
            text: Any = getattr(self, name)
            if text is not None and not isinstance(text, str):
                raise ValueError(f"{name} must be a text, got {text!r}")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if self.api_key_env is not None and not self.api_key_env.isidentifier():
            # It may be the key itself, and messages go into logs.
            raise ValueError("api_key_env must be the name of a variable, not the key (not shown)")
        if self.output_cap not in ("max_tokens", "max_completion_tokens"):
            raise ValueError(
                f"output_cap must be max_tokens or max_completion_tokens, got {self.output_cap!r}"
            )
        component: Any = self.component
        if component is not None and not isinstance(component, Mapping):
            raise ValueError(f"component must be a mapping, got {type(component).__name__}")
        if (self.model is None) == (self.component is None):
            given = "neither" if self.model is None else "both"
            raise ValueError(
                f"an endpoint needs either a model or an AutoGen component, got {given}"
            )


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a backbone from answers it gave: figures per category, never its name.

    Args:
        successes: right answers per category ("benchmark" or "benchmark/category").
        trials: answers looked at per category.
        visible_tokens: mean visible completion tokens per category.
        prompt_tokens: mean prompt tokens per category.
        cuts: per benchmark, output caps that some replies are longer than, each as (multiple of
            the category's mean visible tokens, share of right answers that are no longer, share of
            all visible tokens up to there). None: no cap but the largest is known to pay.
    """

    successes: Mapping[str, float] = field(default_factory=dict[str, float])
    trials: Mapping[str, float] = field(default_factory=dict[str, float])
    visible_tokens: Mapping[str, float] = field(default_factory=dict[str, float])
    prompt_tokens: Mapping[str, float] = field(default_factory=dict[str, float])
    cuts: Mapping[str, tuple[tuple[float, float, float], ...]] = field(
        default_factory=dict[str, tuple[tuple[float, float, float], ...]]
    )

    def __post_init__(self) -> None:
        for name in ("successes", "trials", "visible_tokens", "prompt_tokens", "cuts"):
            values: Any = getattr(self, name)
            if not isinstance(values, Mapping):
                raise ValueError(f"profile {name} must be a mapping, got {values!r}")
            if name == "cuts":
                continue
            for category, value in cast("Mapping[str, Any]", values).items():
                if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                    raise ValueError(
                        f"profile {name} of {category!r} must be a finite number of at least 0, "
                        f"got {value!r}"
                    )
        for category, trials in self.trials.items():
            successes = self.successes.get(category, 0.0)
            if not 0 <= successes <= trials:
                raise ValueError(
                    f"profile category {category!r}: {successes} successes in {trials} trials"
                )
        for benchmark, cuts in self.cuts.items():
            for multiple, right, tokens in cuts:
                if not (multiple > 0 and 0 <= right <= 1 and 0 <= tokens <= 1):
                    raise ValueError(
                        f"profile cuts of {benchmark!r}: expected (multiple above 0, share, "
                        f"share), got {(multiple, right, tokens)}"
                    )


@dataclass(frozen=True, slots=True)
class Backbone:
    """One LLM behind an endpoint.

    Args:
        name: unique in its catalog. The policy never sees it.
        price_in_usd_per_mtok: US dollars for a million prompt tokens.
        price_out_usd_per_mtok: US dollars for a million completion tokens, hidden ones included.
        ttft_s: time to first token in seconds; None if unknown.
        tokens_per_s: completion tokens per second; None if unknown.
        params_b: parameters in billions; None if unknown.
        reasoning: whether it bills hidden reasoning tokens ("hybrid": on request).
        hidden_tokens: estimate of hidden reasoning tokens per benchmark; absent means 0.
        output_spread: where hidden tokens were measured, the standard deviation of the logarithm of
            all output tokens, per benchmark; absent: hidden tokens are taken not to vary.
        capabilities: subset of `CAPABILITIES`.
        max_output_tokens: most completion tokens of one call, hidden ones included.
        context_tokens: prompt + completion tokens that fit; None if unknown.
        tokenizer: the tiktoken encoding that the endpoint bills prompts by, "o200k_base" for
            example; None: a prompt's tokens are bounded by its bytes.
        price_source, speed_source: where the figures come from, repeated in reports.
        endpoint: how to call it live; None for recorded backbones.
        profile: what is known from its answers; None for an unprofiled backbone.

    Raises:
        ValueError: naming the field and the value.
    """

    name: str
    price_in_usd_per_mtok: Decimal
    price_out_usd_per_mtok: Decimal
    ttft_s: float | None = None
    tokens_per_s: float | None = None
    params_b: float | None = None
    reasoning: Reasoning = "no"
    hidden_tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    output_spread: Mapping[str, float] = field(default_factory=dict[str, float])
    capabilities: frozenset[str] = frozenset({"text"})
    max_output_tokens: int = DEFAULT_MAX_OUTPUT_TOKENS
    context_tokens: int | None = None
    tokenizer: str | None = None
    price_source: str = "given"
    speed_source: str = "given"
    endpoint: Endpoint | None = None
    profile: Profile | None = None
    # Worked out once: every call's worst case is computed from them several times.
    picodollars_in: int = field(init=False, repr=False, compare=False, default=0)
    """Pico-dollars per prompt token."""
    picodollars_out: int = field(init=False, repr=False, compare=False, default=0)
    """Pico-dollars per completion token."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("backbone must not be empty")
        for name in ("price_in_usd_per_mtok", "price_out_usd_per_mtok"):
            price: Decimal = getattr(self, name)
            if not isinstance(price, Decimal):
                # A float is not the price that was written down.
                raise ValueError(
                    f"{name} must be a Decimal, for example Decimal('0.15'), got {price!r}"
                )
            if not price.is_finite() or price < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {price}")
            if price >= _PRICE_BOUND:
                raise ValueError(f"{name} must be below {_PRICE_BOUND}, got {price}")
            if price * 10**6 % 1:
                raise ValueError(f"{name} has more than six decimals: {price}")
        if self.price_in_usd_per_mtok == 0 and self.price_out_usd_per_mtok == 0:
            raise ValueError(
                "price_in_usd_per_mtok and price_out_usd_per_mtok are both 0: an unpriced backbone "
                "would always win; give the price you pay for it (for your own hardware, what a "
                "million tokens cost you)"
            )
        for name in ("ttft_s", "tokens_per_s", "params_b"):
            value: float | None = getattr(self, name)
            low_ok = value is None or (value >= 0 if name == "ttft_s" else value > 0)
            if value is not None and not (math.isfinite(value) and low_ok):
                raise ValueError(f"{name} must be a finite number above zero, got {value}")
        for benchmark, tokens in self.hidden_tokens.items():
            if tokens < 0:
                raise ValueError(f"hidden_reasoning_tokens_{benchmark} is negative: {tokens}")
        for benchmark, spread in self.output_spread.items():
            if not (math.isfinite(spread) and spread >= 0):
                raise ValueError(
                    f"output_spread_{benchmark} must be a finite number of at least 0, got {spread}"
                )
        if not isinstance(self.capabilities, (set, frozenset)):
            raise ValueError(f"capabilities must be a set of names, got {self.capabilities!r}")
        unknown = self.capabilities - CAPABILITIES
        if unknown:
            raise ValueError(
                f"capabilities: unknown {sorted(unknown)}; known are {sorted(CAPABILITIES)}"
            )
        if self.reasoning not in ("no", "hybrid", "yes"):
            raise ValueError(f"reasoning must be no, hybrid or yes, got {self.reasoning!r}")
        for name in ("max_output_tokens", "context_tokens"):
            count: Any = getattr(self, name)
            if count is None and name == "context_tokens":
                continue
            if isinstance(count, bool) or not isinstance(count, int):
                raise ValueError(f"{name} must be a whole number, got {count!r}")
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        tokenizer: Any = self.tokenizer
        if tokenizer is not None and not (isinstance(tokenizer, str) and tokenizer):
            raise ValueError(
                f"tokenizer must be the name of a tiktoken encoding, got {tokenizer!r}"
            )
        object.__setattr__(self, "picodollars_in", int(self.price_in_usd_per_mtok * 10**6))
        object.__setattr__(self, "picodollars_out", int(self.price_out_usd_per_mtok * 10**6))

    @property
    def tokens_per_byte(self) -> float:
        """What plans count each byte of a prompt as, before the prompt itself can be measured."""
        return 1.0 if self.tokenizer is None else _TOKENS_PER_BYTE

    def cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        """What a call costs, in nano-dollars, rounded up.

        Prices are whole pico-dollars per token (six decimals of dollars per million), so the sum
        is exact before it is rounded.
        """
        pico = prompt_tokens * self.picodollars_in + completion_tokens * self.picodollars_out
        return -(-pico // 1000)


class Catalog(Mapping[str, Backbone]):
    """The backbones that may be chosen, by name, in a fixed order.

    Args:
        kinds: tells the kinds of tasks apart that the backbones were profiled on: the file that
            `agentbalance record` writes, or a `core.kinds.Kinds`.

    Raises:
        ValueError: two backbones of one name.
    """

    def __init__(self, backbones: Iterable[Backbone], kinds: object | None = None) -> None:
        self.kinds = kinds
        self._by_name: dict[str, Backbone] = {}
        for backbone in backbones:
            if backbone.name in self._by_name:
                raise ValueError(f"two backbones are named {backbone.name!r}")
            self._by_name[backbone.name] = backbone

    def __getitem__(self, name: str) -> Backbone:
        try:
            return self._by_name[name]
        except KeyError:
            raise KeyError(
                f"no backbone {name!r} in the catalog; it has {', '.join(self._by_name) or 'none'}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Catalog({list(self._by_name)})"

    @cached_property
    def smallest_context(self) -> int | None:
        """The least `context_tokens` of a backbone whose own are known; None where none are."""
        known = [b.context_tokens for b in self._by_name.values() if b.context_tokens is not None]
        return min(known, default=None)

    @classmethod
    def load(cls, path: str | Any) -> Catalog:
        """Read a catalog from a `.csv`, `.yaml` or `.yml` file.

        Args:
            path: the file. Field names are those of `Backbone`, with `backbone` for the name; see
                docs/catalog.md.

        Raises:
            CatalogError: naming file, row, field and value.
        """
        from agentbalance_plugin.catalog_file import read_catalog

        return cls(*read_catalog(path))

    def offers(self, capability: str) -> bool:
        """Whether any backbone has it."""
        return any(capability in backbone.capabilities for backbone in self._by_name.values())

    def subset(self, names: Iterable[str]) -> Catalog:
        """A catalog of these backbones alone, in the order given (KeyError for an unknown one)."""
        return Catalog((self[name] for name in names), self.kinds)

    def with_profiles(self, profiles: Mapping[str, Profile]) -> Catalog:
        """The same backbones with the given profiles; those not named keep their own."""
        return Catalog(
            (
                replace(backbone, profile=profiles.get(name, backbone.profile))
                for name, backbone in self._by_name.items()
            ),
            self.kinds,
        )


class CatalogError(ValueError):
    """A catalog file that can't be used; the message names file, row, field and value."""
