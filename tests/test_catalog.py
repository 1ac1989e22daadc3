from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbalance_plugin import Backbone, Catalog, CatalogError

HEADER = "backbone,price_in_usd_per_mtok,price_out_usd_per_mtok"


def write(tmp_path: Path, text: str, name: str = "catalog.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_is_read_with_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"{HEADER},ttft_s,params_total_b,reasoning,base,hidden_reasoning_tokens_gsm8k\n"
        "small,0.02,0.06,0.3,8,no,Llama,0\n"
        "large,1.1,4.4,,,yes,,400\n",
    )
    catalog = Catalog.load(path)
    assert list(catalog) == ["small", "large"]
    small, large = catalog["small"], catalog["large"]
    assert small.price_in_usd_per_mtok == Decimal("0.02")
    assert (small.ttft_s, small.params_b, small.max_output_tokens) == (0.3, 8.0, 4096)
    assert small.capabilities == {"text"}
    assert (large.ttft_s, large.reasoning, large.hidden_tokens["gsm8k"]) == (None, "yes", 400)


def test_yaml_is_read_with_endpoints(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
backbones:
  - backbone: mini
    price_in_usd_per_mtok: 0.15
    price_out_usd_per_mtok: 0.6
    reasoning: no
    capabilities: [text, tools]
    model: gpt-4o-mini
    base_url: http://127.0.0.1:1/v1
    api_key_env: SOME_KEY
    profile:
      successes: {maths: 8}
      trials: {maths: 10}
""",
        "catalog.yaml",
    )
    mini = Catalog.load(path)["mini"]
    assert mini.reasoning == "no"
    assert mini.endpoint is not None
    assert mini.endpoint.model == "gpt-4o-mini"
    assert mini.profile is not None
    assert mini.profile.successes["maths"] == 8


def test_a_profile_may_be_that_of_recorded_backbones(tmp_path: Path) -> None:
    prices = "price_in_usd_per_mtok: 1\n  price_out_usd_per_mtok: 1"
    entry = f"backbone: {{0}}\n  {prices}\n  profile: {{1}}\n"
    one, other = "gpt-4o-2024-08-06", "openai/gpt-4o-2024-05-13"
    text = "- " + "- ".join(entry.format(n, p) for n, p in (("a", one), ("b", [one, other])))
    catalog = Catalog.load(write(tmp_path, text, "c.yaml"))
    a, b = catalog["a"].profile, catalog["b"].profile
    assert a is not None
    assert b is not None
    assert set(a.trials) == {"gsm8k", "math_l5", "crux"}
    assert b.trials.items() > a.trials.items()
    assert any(category.startswith("mmlu/") for category in b.trials)
    header = "backbone,price_in_usd_per_mtok,price_out_usd_per_mtok,profile"
    table = write(tmp_path, f"{header}\na,1,1,{one}\n")
    assert Catalog.load(table)["a"].profile == a
    # How long they write is not that of prompts that asked for a letter, nor are its longest.
    least, most = min(a.visible_tokens.values()), max(a.visible_tokens.values())
    of_mmlu = {n for kind, n in b.visible_tokens.items() if kind.startswith("mmlu/")}
    assert 20 < least < min(of_mmlu) <= max(of_mmlu) < most
    assert (a.cuts, b.cuts) == ({}, {})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("small,,0.06", r"line 2 \(small\): price_in_usd_per_mtok is missing"),
        ("small,-0.1,0.06", r"line 2 \(small\): price_in_usd_per_mtok .* got -0.1"),
        ("small,nan,0.06", r"line 2 \(small\): price_in_usd_per_mtok .* got NaN"),
        ("small,cheap,0.06", r"line 2 \(small\): price_in_usd_per_mtok .* got 'cheap'"),
        ("small,0,0", r"line 2 \(small\): .* both 0"),
        ("small,0.0000001,1", r"line 2 \(small\): price_in_usd_per_mtok .* six decimals"),
        ("small,1e30,1", r"line 2 \(small\): price_in_usd_per_mtok must be below .*, got 1E\+30"),
        (",1,1", r"line 2 .*backbone \(the name\) is missing"),
        ("small,1,1,9", r"line 2: more cells"),
        ("small,1,1\nsmall,2,2", r"line 3: backbone 'small' is already in line 2"),
        ("", "the catalog is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, f"{HEADER}\n{row}\n")
    with pytest.raises(CatalogError, match=message) as caught:
        Catalog.load(path)
    assert "catalog.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("capabilities: [text, telepathy]", "capabilities: unknown \\['telepathy'\\]"),
        ("tokens_per_second: 9", "unknown field 'tokens_per_second' \\(value 9\\)"),
        ("tokens_per_s: 0", "tokens_per_s must be .* got 0"),
        ("max_output_tokens: 1.5", "max_output_tokens must be a whole number, got 1.5"),
        ("tokenizer: ''", "tokenizer must be the name of a tiktoken encoding, got ''"),
        ("ttft_s: true", "ttft_s must be a number, got True"),
        ("profile: []", "profile names no recorded backbone; leave the field out"),
        ("api_key: sk-secret", r"unknown field 'api_key' \(value not shown\).* api_key_env"),
        ("model: m\n  api_key_env: sk-secret", "the name of a variable, not the key"),
        ("reasoning: maybe", "reasoning must be no, hybrid or yes, got 'maybe'"),
        ("base_url: http://x", "either a model or an AutoGen component"),
        ("profile: {successes: {a: 3}, trials: {a: 2}}", "3 successes in 2 trials"),
        ("profile: {trials: 3}", "profile: profile trials must be a mapping, got 3"),
        ("profile: {cuts: [1]}", "profile: profile cuts must be a mapping"),
        ("profile: {visible_tokens: {a: x}}", "visible_tokens of 'a' must be a finite .* got 'x'"),
        ("profile: {trials: {a: .inf}}", "trials of 'a' must be a finite number .* got inf"),
        ("profile: {prompt_tokens: {a: -1}}", "prompt_tokens of 'a' must be .* got -1"),
        ("profile: 3", "profile must be a mapping, or names of recorded backbones, got 3"),
        ("profile: gpt-4o-min", "no recorded backbone 'gpt-4o-min'; there are gpt-4o-mini-2024"),
        ("profile: [gemini-1.5-flash, 7]", "no recorded backbone 7"),
        ("reasoning: [1]", r"reasoning must be no, hybrid or yes, got '\[1\]'"),
        ("7: x", "unknown field 7 \\(value 'x'\\)"),
        ("hidden_reasoning_tokens_x: -1", "hidden_reasoning_tokens_x is negative"),
        (
            "output_spread_x: -0.1",
            "output_spread_x must be a finite number of at least 0, got -0.1",
        ),
        ("output_spread_x: .nan", "output_spread_x must be a finite number"),
        ("profile: [{trials: 1}]", "profile: no recorded backbone {'tr"),
        ("model: 4", "model must be a text, got 4"),
        ("model: m\n  base_url: [x]", "base_url must be a text, got"),
        ("model: m\n  base_url: localhost:8000/v1", "base_url must begin with http"),
        ("model: m\n  api_key_env: 3", "api_key_env must be a text, got 3"),
        ("model: m\n  output_cap: max_token", "output_cap must be max_tokens or .*'max_token'"),
        ("component: x", "component must be a mapping, got str"),
        ("base_url: http://127.0.0.1", "either a model or an AutoGen component, got neither"),
        ("model: m\n  component: {provider: p}", "either a model or an .* component, got both"),
    ],
)
def test_a_bad_yaml_entry_is_named(tmp_path: Path, fields: str, message: str) -> None:
    text = "- backbone: b\n  price_in_usd_per_mtok: 1\n  price_out_usd_per_mtok: 1\n  " + fields
    with pytest.raises(CatalogError, match=f"c.yml, entry 1 \\(b\\): .*{message}"):
        Catalog.load(write(tmp_path, text, "c.yml"))


def test_files_that_are_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=f"no such catalog file in {tmp_path}; name the one"):
        Catalog.load(tmp_path / "none.csv")
    with pytest.raises(CatalogError, match="not valid YAML"):
        Catalog.load(write(tmp_path, "a: [", "a.yaml"))
    with pytest.raises(CatalogError, match="expected a list"):
        Catalog.load(write(tmp_path, "just text", "b.yaml"))
    with pytest.raises(CatalogError, match="entry 1: expected fields"):
        Catalog.load(write(tmp_path, "[1]", "c.yaml"))


@pytest.mark.parametrize("price", [1, 0.15, "0.15", None])
def test_a_price_that_is_no_decimal_is_refused_by_name(price: Any) -> None:
    with pytest.raises(ValueError, match=r"price_in_usd_per_mtok must be a Decimal, .* got"):
        Backbone("a", price, Decimal(1))
    with pytest.raises(ValueError, match=r"price_out_usd_per_mtok must be a Decimal, .* got"):
        Backbone("a", Decimal(1), price)


@pytest.mark.parametrize("name", ["max_output_tokens", "context_tokens"])
@pytest.mark.parametrize("count", [1.5, True, float("inf"), "500"])
def test_tokens_that_are_no_whole_number_are_refused_by_name(name: str, count: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number, got {count!r}"):
        Backbone("mini", Decimal(1), Decimal(1), **{name: count})


@pytest.mark.parametrize("capabilities", ["text", ["text"], None])
def test_capabilities_that_are_no_set_are_refused_by_name(capabilities: Any) -> None:
    with pytest.raises(ValueError, match="capabilities must be a set of names, got"):
        Backbone("a", Decimal(1), Decimal(1), capabilities=capabilities)


@pytest.mark.parametrize("name", ["catalog.csv", "catalog.yaml"])
def test_a_file_that_is_no_text_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CatalogError, match=rf"{name}: can't be read as UTF-8 text"):
        Catalog.load(tmp_path / name)


def test_a_tables_name_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "CATALOG.CSV").write_text(f"{HEADER}\na,1,1\n", encoding="utf-8")
    assert list(Catalog.load(tmp_path / "CATALOG.CSV")) == ["a"]


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "catalog.csv").write_text(f"{HEADER}\na,1,1\n", encoding="utf-8-sig")
    assert list(Catalog.load(tmp_path / "catalog.csv")) == ["a"]


def test_an_unknown_backbone_is_named_with_those_there() -> None:
    catalog = Catalog([Backbone("a", Decimal(1), Decimal(1))])
    with pytest.raises(KeyError, match="no backbone 'b' in the catalog; it has a"):
        catalog["b"]


def test_two_backbones_of_one_name() -> None:
    with pytest.raises(ValueError, match="two backbones are named 'a'"):
        Catalog([Backbone("a", Decimal(1), Decimal(1))] * 2)


@given(
    st.decimals("0.000001", "100", places=6),
    st.decimals("0.000001", "100", places=6),
    st.integers(0, 10**6),
    st.integers(0, 10**5),
)
def test_cost_is_exact_and_rounded_up(
    price_in: Decimal, price_out: Decimal, prompt: int, completion: int
) -> None:
    cost = Backbone("b", price_in, price_out).cost(prompt, completion)
    exact = (prompt * price_in + completion * price_out) * 1000  # USD/Mtok -> nano-dollars a token
    assert exact <= cost < exact + 1
