"""The judge reads observations while the rest of their completions is drawn: earlier, no more
often, and with the same verdicts.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.judged_groups import (
    LIMITS,
    OTHER,
    QUESTION,
    RULES,
    asked,
    open_judge,
    text_of,
)
from helpers.replays import rl_world
from helpers.rl_settings import SIZE, settings
from helpers.rollout_scenes import P2R, rollout_group
from helpers.tiny_models import prompt, tiny_model
from servers.model_server import RunningServer
from torch import Tensor

from sandbox.models.tiny_tokenizer import build_tokenizer
from schemas.questions import VideoQuestion
from train.algorithms.credit_assignment import CreditAssignment
from train.algorithms.registry import parse_algo
from train.rewards.group_rewarder import GroupRewarder
from train.rollouts.sampler import Sampling, sample_completions
from train.rollouts.segments import TokenBytes
from train.rollouts.streaming import ReadAlong
from train.trainers.grpo_trainer import VideoGRPOTrainer
from train.trainers.step_report import StepReport


def test_rows_are_read_until_enough_was_seen_or_they_end() -> None:
    tokenizer = build_tokenizer()
    end = tokenizer.eos_token_id
    rows = [
        tokenizer("<observation>red</observation> <think>so red</think>")["input_ids"],
        [*tokenizer("<observation>")["input_ids"], end, *tokenizer("nothing of this")["input_ids"]],
        tokenizer("<observation>a blue circle and no end of it, of that and of all else")[
            "input_ids"
        ],
    ]
    width = min(map(len, rows[::2]))
    tokens = torch.tensor([[*row, *[0] * width][:width] for row in rows])
    shown: list[tuple[str, str]] = []

    def show(question: VideoQuestion, text: str) -> bool:
        shown.append((question.question_id, text))
        return "</observation>" in text

    short = OTHER.model_copy(update={"problem": "Which one ends at once?"})
    read = ReadAlong([QUESTION, short, OTHER], 1, [end], TokenBytes(tokenizer), show)
    for step in range(4, width + 1, 4):
        read(tokens[:, :step], 0)
    texts = {question: [t for q, t in shown if q == question] for question, _ in shown}
    first = texts[QUESTION.question_id]
    assert first[-1].startswith("<observation>red</observation>")
    assert sum("</observation>" in text for text in first) == 1
    assert all(later.startswith(text) for text, later in pairwise(first))
    assert texts[short.question_id] == ["<observation>"]
    assert texts[OTHER.question_id][-1] == tokenizer.decode(rows[2][: width // 4 * 4])


def test_rows_of_several_parts_are_read() -> None:
    """Two questions' rows grow one after the other, each from its first token on."""
    tokenizer = build_tokenizer()
    ids = tokenizer("<observation>red</observation>")["input_ids"]
    shown: list[tuple[str, str]] = []

    def show(question: VideoQuestion, text: str) -> bool:
        shown.append((question.question_id, text))
        return False

    read = ReadAlong([QUESTION, OTHER], 1, [0], TokenBytes(tokenizer), show)
    for first_row in (0, 1):
        for step in (2, len(ids)):
            read(torch.tensor([ids[:step]]), first_row)
    texts = [tokenizer.decode(ids[:2]), tokenizer.decode(ids)]
    assert shown == [
        (question.question_id, text) for question in (QUESTION, OTHER) for text in texts
    ]


def test_a_sampler_tells_what_it_has_drawn_so_far() -> None:
    model = tiny_model("qwen2.5-vl")
    told: list[Tensor] = []
    groups = sample_completions(
        model,
        [prompt("qwen2.5-vl", 0), prompt("qwen2.5-vl", 1)],
        group_size=2,
        sampling=Sampling(40),
        end_ids=(),
        seeds=[1, 2],
        progress=lambda tokens, first_row: told.append(tokens.clone()),
    )
    drawn = torch.stack([row for group in groups for row in group])
    assert [tokens.shape for tokens in told] == [(4, 17), (4, 33)]
    for tokens in told:
        assert torch.equal(tokens, drawn[:, : tokens.shape[1]])


@pytest.mark.heavy
def test_what_was_asked_ahead_is_not_asked_again(
    model_server: RunningServer, tmp_path: Path
) -> None:
    """The same rewards and as many calls, which had ended before all of the completions came."""
    model_server.control(replies=RULES)
    leak = "The box slides, so the answer is B."
    texts = [text_of("ok"), text_of("poor"), text_of(leak), text_of("ok"), "<observation>red"]
    group = rollout_group(QUESTION, texts)
    with open_judge(model_server, tmp_path / "ahead") as judge:
        rewarder = GroupRewarder(P2R, LIMITS, judge)
        seen = [rewarder.ask_ahead(QUESTION, text.split(" <think>")[0]) for text in texts]
        assert seen == [True, True, True, True, False]
        # never wanted: its completion broke the template after the observation
        rewarder.ask_ahead(QUESTION, "<observation>poor and poorer</observation>")
        deadline = time.monotonic() + 30
        while judge.stats().calls < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pending = rewarder.start([group])
        assert not judge._ahead, "what nobody wants is not kept for the whole run"
        (ahead,) = pending.wait()
        assert asked(model_server) == 3
        assert pending.use.stats.calls == 3
        assert pending.use.stats.cache_hits == 0
        again = rewarder.start([rollout_group(QUESTION, [text_of("poor and poorer")])])
        again.wait()
        assert (again.use.stats.calls, again.use.stats.cache_hits) == (0, 1)  # paid once
    with open_judge(model_server, tmp_path / "plain") as judge:
        plain = GroupRewarder(P2R, LIMITS, judge, asks_ahead=False)
        assert plain.ask_ahead(QUESTION, texts[0])
        (rewards,) = plain.start([group]).wait()
    assert asked(model_server) == 5
    assert ahead == rewards


@pytest.mark.heavy
def test_a_judge_works_while_completions_are_drawn(
    model_server: RunningServer, tmp_path: Path
) -> None:
    """Nothing else takes long here: calls that began with the whole completions would be waited
    for as long as they take."""
    seconds = 0.8
    model_server.control(latency_ms=1000 * seconds, replies=RULES)
    world, spec = rl_world(tmp_path, num=4), parse_algo("pa-dapo")
    replay, reports = world.replay(SIZE), list[StepReport]()

    def drawn_slowly(
        model: Any, prompts: Sequence[Mapping[str, Tensor]], **given: Any
    ) -> list[list[Tensor]]:
        groups = replay(model, prompts, **given)
        rows = [row for group in groups for row in group]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        given["progress"](tokens[:, : tokens.shape[1] * 3 // 4], 0)
        time.sleep(1.5 * seconds)
        return groups

    def observe(report: StepReport) -> dict[str, float]:
        reports.append(report)
        return {}

    with open_judge(model_server, tmp_path) as judge:
        VideoGRPOTrainer(
            world.model(),
            settings(tmp_path / "out", spec.name, max_steps=1),
            world.rows,
            processor=world.processor,
            template=world.template,
            credit=CreditAssignment(spec, scale=True),
            rewarder=GroupRewarder(world.template, LIMITS, judge),
            rollout_source=drawn_slowly,
            observe=observe,
        ).train()
    world.loader.close()
    use = reports[0].judge
    assert use is not None
    texts = {
        (scored.group.question.question_id, text)
        for scored in reports[0].groups
        for rollout in scored.group.rollouts
        if (text := GroupRewarder(P2R, LIMITS, None).observation(rollout.text)) is not None
    }
    assert len(texts) >= 4
    assert use.stats.calls == len(texts), "each observation once"
    assert use.seconds_waited < seconds / 2
