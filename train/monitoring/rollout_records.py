"""Records of rollouts: one JSON object per group, with all that their page shows and more."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train.algorithms.appo import AppoConfig, frame_scores
from train.rollouts.segments import PERCEPTION, REASONING
from train.rollouts.types import GroupRewards, Rollout, ScoredGroup, SegmentReward, is_correct

ROLE_OF_SEGMENT = {PERCEPTION: "perception", REASONING: "reasoning"}


def rollout_record(
    scored: ScoredGroup, cell_seconds: Sequence[float] | None, *, step: int, config: AppoConfig
) -> dict[str, Any]:
    """A group as JSON; missing numbers are null.

    Of each rollout: text, rewards, advantages per segment, and per token its segment and weight.
    With frame attention, F frames: `cell_seconds` when each begins, `crucial_frames`, and of each
    rollout `frame_scores` [F], by which frames are chosen (`train.algorithms.appo.frame_scores`;
    passed as attention [G, 1, F] to `select_frames` they give the same choice), and
    `mean_attention` [F], over all its tokens.
    """
    question = scored.group.question
    return {
        "step": step,
        "question_id": question.question_id,
        "row": question.row,
        "problem": question.problem,
        "solution": question.solution,
        "problem_type": question.problem_type.value,
        "media": [ref.path for ref in question.media],
        "cell_seconds": None if cell_seconds is None else list(cell_seconds),
        "crucial_frames": _listed(scored.crucial_frames),
        "rollouts": [_rollout(scored, place, config) for place in range(scored.group.size)],
    }


def write_rollout_records(
    path: Path,
    scored: Sequence[ScoredGroup],
    cell_seconds: Sequence[Sequence[float] | None],
    *,
    step: int,
    config: AppoConfig | None = None,
) -> None:
    """Write a JSON Lines file, one group a line, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for group, seconds in zip(scored, cell_seconds, strict=True):
                record = rollout_record(group, seconds, step=step, config=config or AppoConfig())
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def rollout_advantages(scored: ScoredGroup, place: int) -> dict[str, float]:
    """The advantage of each segment that a rollout has."""
    rollout, row = scored.group.rollouts[place], scored.advantages[place]
    found = {}
    for number, role in ROLE_OF_SEGMENT.items():
        columns = (rollout.segment_ids == number).nonzero()
        if len(columns):
            found[role] = float(row[int(columns[0])])
    return found


def _rollout(scored: ScoredGroup, place: int, config: AppoConfig) -> dict[str, Any]:
    rollout, rewards = scored.group.rollouts[place], scored.rewards
    verdict = rewards.verdicts[place]
    return {
        "text": rollout.text,
        "is_right": is_correct(rewards.reasoning, config.reward_threshold)[place],
        "is_truncated": rollout.is_truncated,
        "num_tokens": len(rollout.token_ids),
        "rewards": {
            "perception": None if rewards.perception is None else _terms(rewards.perception[place]),
            "reasoning": _terms(rewards.reasoning[place]),
            **_named(rewards, place),
        },
        "verdict": None if verdict is None else verdict.verdict,
        "advantages": rollout_advantages(scored, place),
        "segments": rollout.segment_ids.tolist(),
        "weights": _of_tokens(scored.weights, place, rollout),
        **_attention(scored, place, config),
    }


def _named(rewards: GroupRewards, place: int) -> dict[str, Any]:
    """Values of the rewards of --reward; nothing without any."""
    values = {name: values[place] for name, values in rewards.named.items()}
    if not values:
        return {}
    return {"named": {name: None if math.isnan(v) else v for name, v in values.items()}}


def _attention(scored: ScoredGroup, place: int, config: AppoConfig) -> dict[str, Any]:
    if scored.frame_attention is None:
        return {"frame_scores": None, "mean_attention": None}
    attention = scored.frame_attention[place]
    num_tokens = len(scored.group.rollouts[place].token_ids)
    return {
        "frame_scores": frame_scores(attention[None], config.score_tokens)[0].tolist(),
        "mean_attention": attention[:num_tokens].float().mean(dim=0).tolist(),
    }


def _of_tokens(values: Any, place: int, rollout: Rollout) -> list[float] | None:
    if values is None:
        return None
    numbers: list[float] = values[place, : len(rollout.token_ids)].tolist()
    return numbers


def _listed(values: Any) -> list[Any] | None:
    return None if values is None else values.tolist()


def _terms(reward: SegmentReward) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(reward).items()}
