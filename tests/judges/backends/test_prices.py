"""The price table: what is listed costs what the page says, and nothing is guessed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judges.backends.base import Usage
from judges.backends.prices import ModelPrice, Prices, Rates

M = 1_000_000


def price_of(model: str, prices: Prices | None = None) -> ModelPrice:
    price = (prices or Prices.load()).price("claude", model)
    assert price is not None, f"{model} has no price"
    return price


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        # input M + output M + cache read M + cache write M, in dollars of the published table
        ("claude-opus-5-5", Usage(M, M, M, M), 4 + 20 + 0.2 + 5),
        ("claude-sonnet-5-5", Usage(M, M, M, M), 2 + 10 + 0.1 + 2.5),
        ("claude-sonnet-5", Usage(M, M, M, M), 2 + 10 + 0.2 + 2.5),
        ("claude-fable-5-1", Usage(0, 0, M, M), 0.25 + 12.5),
        ("claude-fable-5", Usage(0, 0, M, M), 1.0 + 12.5),
        ("claude-opus-4-5-20251101", Usage(M, M), 5 + 25),
        ("claude-sonnet-4-5", Usage(M, M), 3 + 15),
        ("claude-haiku-4-5-20251001", Usage(M, M), 1 + 5),
    ],
)
def test_a_request_costs_what_the_table_says(model: str, usage: Usage, dollars: float) -> None:
    assert price_of(model).cost(usage, batch=False) == pytest.approx(dollars, rel=0, abs=1e-9)


def test_a_batched_request_costs_half() -> None:
    usage = Usage(300, 200, 100, 50)
    price = price_of("claude-opus-5-5")
    assert price.cost(usage, batch=True) == 0.5 * price.cost(usage, batch=False) > 0


def test_a_prompt_above_the_threshold_pays_the_long_price_on_every_token() -> None:
    price = price_of("claude-haiku-5-5")
    # 100,000 x 0.10 + 1,000 x 0.50 = 10,500 per million; one token more: 100,001 x 0.50 + 2,500
    assert price.cost(Usage(100_000, 1_000), False) == pytest.approx(0.0105, rel=0, abs=1e-12)
    assert price.cost(Usage(100_001, 1_000), False) == pytest.approx(0.0525005, rel=0, abs=1e-12)


def test_cached_tokens_count_towards_the_length_of_the_prompt() -> None:
    price = price_of("claude-haiku-5-5")
    # the long cache read price is a tenth of the long input price: 0.05 per million
    cost = price.cost(Usage(1, 0, cache_read_tokens=100_000), False)
    assert cost == pytest.approx((0.5 + 100_000 * 0.05) / 1e6, rel=0, abs=1e-15)


tokens = st.integers(0, 300_000)


@given(tokens, tokens, st.integers(0, 4_000), st.integers(0, 4_000), st.booleans())
def test_no_split_of_the_tokens_costs_more_than_the_worst_case(
    fresh: int, cached: int, written: int, output: int, batch: bool
) -> None:
    bound = fresh + cached + written
    for model in ("claude-haiku-5-5", "claude-opus-5-5"):
        price = price_of(model)
        cost = price.cost(Usage(fresh, output, cached, written), batch)
        assert cost <= price.worst_case(bound, output, batch) + 1e-12
        shorter = price.cost(Usage(fresh // 2, output), batch)
        assert shorter <= price.worst_case(bound, output, batch) + 1e-12


@pytest.mark.parametrize(
    "model", ["claude-opus-5-5-20261201", "claude-fable-5-2", "claude-opus", "CLAUDE-OPUS-5-5", ""]
)
def test_a_model_that_is_not_listed_has_no_price(model: str) -> None:
    assert Prices.load().price("claude", model) is None


def test_a_listed_model_has_no_price_at_another_provider() -> None:
    assert Prices.load().price("openai", "claude-opus-5-5") is None


@pytest.mark.parametrize("provider", ["local", "oracle"])
def test_what_runs_in_this_process_is_free(provider: str) -> None:
    price = Prices.load().price(provider, "anything")
    assert price is not None
    assert price.cost(Usage(10**9, 10**9), batch=False) == 0.0


def test_the_table_says_when_and_where_it_was_read() -> None:
    prices = Prices.load()
    assert prices.dated == "2026-11"
    assert prices.source.startswith("https://platform.claude.com/")


def test_a_users_file_adds_entries_and_replaces_whole_ones(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "[openai.'Qwen/Qwen3-VL']\ninput = 0\noutput = 0\n"
        "[claude.claude-haiku-5-5]\ninput = 7\noutput = 9\nbatch_factor = 0.25\n"
    )
    prices = Prices.load(file)
    free = prices.price("openai", "Qwen/Qwen3-VL")
    assert free == ModelPrice(Rates(0, 0, 0, 0))
    mine = price_of("claude-haiku-5-5", prices)
    # whole: the built-in long-prompt rates are gone, and a million input tokens cost 7
    assert mine.cost(Usage(1_000_000), batch=False) == 7.0
    assert mine.cost(Usage(1_000_000), batch=True) == 1.75
    assert price_of("claude-opus-5-5", prices).rates.input == 4.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[claude.x]\ninput = 1\n", "output"),
        ("[claude.x]\ninput = -1\noutput = 1\n", "claude.x.input"),
        ("[claude.x]\ninput = 1\noutput = 1\noutptu = 2\n", "outptu"),
        ("[claude.x]\ninput = nan\noutput = 1\n", "claude.x.input"),
        ("claude = 3\n", "claude"),
        ("[claude.x]\ninput = 1e308\noutput = 1\n", "claude.x.input.*1000000"),
        ("[claude.x]\ninput = true\noutput = 1\n", "claude.x.input"),
        ("[claude.x]\ninput = '1'\noutput = 1\n", "claude.x.input"),
        (f"a = {'[' * 5000}", "nested too deeply"),
        ("[claude", "not TOML"),
    ],
)
def test_a_wrong_price_file_is_refused_with_file_and_place(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        Prices.load(file)
    assert "mine.toml" in str(caught.value)


def test_a_missing_price_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.toml"):
        Prices.load(tmp_path / "absent.toml")
