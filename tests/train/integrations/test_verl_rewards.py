"""verl's custom reward function, and PA-GRPO from rewards by token."""

import asyncio
import math
from pathlib import Path

import pytest
import torch
from helpers.judged_groups import QUESTION, RULES, text_of
from hypothesis import given
from hypothesis import strategies as st
from reference.naive_advantages import naive_group_advantages, naive_segment_advantages
from servers.model_server import RunningServer

from cli.config import UsageError
from train.integrations.completion_rewards import question_column
from train.integrations.verl_rewards import compute_score, pa_grpo, token_rewards

NAN = math.nan
EXTRA = {"question": question_column(QUESTION)}


def segments(perception: int, reasoning: int) -> torch.Tensor:
    return torch.tensor([1] * perception + [2] * reasoning)


def batch(
    rows: list[tuple[float, float, int, int]], width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and mask [B, T] of (perception, reasoning, tokens of either), padded on the right."""
    rewards, mask = torch.zeros(len(rows), width), torch.zeros(len(rows), width, dtype=torch.long)
    for number, (perception, reasoning, first, second) in enumerate(rows):
        values = token_rewards(perception, reasoning, segments(first, second))
        rewards[number, : len(values)] = torch.tensor(values, dtype=torch.float32)
        mask[number, : len(values)] = 1
    return rewards, mask


def test_each_reward_reaches_the_tokens_of_its_segment() -> None:
    """Rows of two questions, mixed; one verdict is missing, one completion has no observation."""
    rows = [(2.0, 1.0, 4, 3), (NAN, 0.0, 3, 5), (0.0, 2.0, 0, 2), (1.0, 0.5, 5, 3)]
    rewards, mask = batch([row for row in rows for _ in range(2)], width=9)
    index = ["q1", "q2"] * 4
    advantages, returns = pa_grpo(rewards, mask, index)
    ids = [[1] * a + [2] * b + [0] * (9 - a - b) for _, _, a, b in rows]
    expected = naive_segment_advantages(
        [row[0] for row in rows], [row[1] for row in rows], ids, 4, True, 1e-4
    )
    for question in (0, 1):
        torch.testing.assert_close(advantages[question::2], torch.tensor(expected))
    assert returns is advantages


@given(
    st.lists(
        st.tuples(
            *(st.one_of(st.just(NAN), st.sampled_from([0.0, 0.2, 1.0, 2.2])),) * 2,
            st.integers(0, 40),
            st.integers(0, 40),
        ).filter(lambda row: row[2] + row[3] >= 3),
        min_size=2,
        max_size=6,
    )
)
def test_what_travels_in_token_rewards_comes_back_exactly(
    rows: list[tuple[float, float, int, int]],
) -> None:
    rewards, mask = batch(rows, width=80)
    advantages, _ = pa_grpo(rewards, mask, ["q"] * len(rows))
    ids = [[1] * a + [2] * b + [0] * (80 - a - b) for _, _, a, b in rows]
    exact = [[float(torch.tensor(row[part])) for row in rows] for part in (0, 1)]
    expected = naive_segment_advantages(*exact, ids, len(rows), True, 1e-4)
    torch.testing.assert_close(advantages, torch.tensor(expected), atol=2e-5, rtol=1e-4)


def test_the_sum_over_tokens_is_the_sum_of_both() -> None:
    assert sum(token_rewards(1.2, 0.4, segments(300, 500))) == pytest.approx(1.6, abs=1e-9)


def test_one_reward_at_the_last_token_is_grpo_with_missing_ones_left_out() -> None:
    """What verl makes of `compute_score`; also with completions of one and of two tokens."""
    scores, lengths = [1.0, NAN, 3.0, 2.0], [4, 3, 1, 2]
    rewards, mask = torch.zeros(4, 6), torch.zeros(4, 6)
    for row, (score, length) in enumerate(zip(scores, lengths, strict=True)):
        rewards[row, length - 1], mask[row, :length] = score, 1
    advantages, _ = pa_grpo(rewards, mask, ["q"] * 4)
    expected = naive_group_advantages(scores, 4, True, 1e-4)
    for row, length in enumerate(lengths):
        assert advantages[row, :length].tolist() == pytest.approx([expected[row]] * length)
        assert not advantages[row, length:].any()


def test_verls_own_settings_are_read() -> None:
    rewards, mask = batch([(0.0, 1.0, 0, 3), (0.0, 3.0, 0, 3)], width=3)
    advantages, _ = pa_grpo(rewards, mask, ["q", "q"], {"norm_adv_by_std_in_grpo": False})
    assert advantages[:, 0].tolist() == [-1.0, 1.0]
    with pytest.raises(UsageError, match="use_kl_in_reward changes"):
        pa_grpo(rewards, mask, ["q", "q"], {"use_kl_in_reward": True})
    mask[0, 1] = 0
    with pytest.raises(UsageError, match="single turns only"):
        pa_grpo(rewards, mask, ["q", "q"])


@pytest.mark.parametrize(("perception", "parts"), [(1.0, (0, 1)), (0.0, (1, 1))])
def test_what_cannot_be_carried_is_refused(perception: float, parts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        token_rewards(perception, 1.0, segments(*parts))


@pytest.mark.heavy
def test_a_score_is_the_judges_and_the_answers_and_nan_where_it_is_missing(
    model_server: RunningServer, tmp_path: Path
) -> None:
    model_server.control(replies=RULES)
    path = tmp_path / "rewards.yaml"
    path.write_text(
        f"output-dir: {tmp_path / 'out'}\njudge: openai:judge@{model_server.openai_url}\n"
        "retries: 0\nlength-weight: 0\nreward: [default, format=0.5]\n"
    )

    async def scored(*observations: str) -> list[dict[str, float]]:
        calls = [
            compute_score("p2r", text_of(one), "B", {**EXTRA, "num_turns": 2}, rewards=str(path))
            for one in observations
        ]
        return await asyncio.gather(*calls)

    yes, no, mute = asyncio.run(scored("ok", "poor", "mute"))
    numbers = {"total": 4.5, "reasoning": 2.5, "perception": 2.0, "rewards/format": 1.0}
    assert yes == {"score": 4.5, **numbers}
    assert no["score"] == 3.5
    assert math.isnan(mute["score"])
    assert set(mute) == set(yes)
    reasoning = compute_score(
        "p2r", text_of("ok"), "B", EXTRA, rewards=str(path), score="reasoning"
    )
    assert asyncio.run(reasoning)["score"] == 2.5
    with pytest.raises(UsageError, match="there are total, reasoning, perception"):
        asyncio.run(compute_score("p2r", "x", "B", EXTRA, rewards=str(path), score="mine"))


def test_a_row_of_another_question_is_refused() -> None:
    with pytest.raises(UsageError, match="ground truth is 'C', but its question's solution is 'B'"):
        asyncio.run(compute_score("p2r", "x", "C", EXTRA))
    with pytest.raises(UsageError, match="which is no question"):
        asyncio.run(compute_score("p2r", "x", "C", {}))
