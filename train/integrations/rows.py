"""Rows of datasets for TRL, verl and ms-swift: the prompt that `train.rl` asks, and the question.

    questions = [q for q in read_questions(path, format="video-r1") if isinstance(q, VideoQuestion)]
    Dataset.from_list([verl_row(q, "p2r", clips) for q in questions]).to_parquet("train.parquet")

Each row has the question as JSON, from which rewards are computed, and the paths of its media.
Which frames of a clip a model sees is the other trainer's matter: its sampling is not
`media.sampling`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.config import UsageError
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.trainer_rows import media_paths, question_column, with_places


def trl_row(question: VideoQuestion, template: str, images: Sequence[Any] = ()) -> dict[str, Any]:
    """A row for TRL's GRPOTrainer, which reads images and no videos: give frames as `images`."""
    row: dict[str, Any] = {
        "prompt": [{"role": "user", "content": task_prompt(question, template).text}],
        "question": question_column(question),
    }
    return row | {"images": list(images)} if images else row


def verl_row(
    question: VideoQuestion, template: str, media_root: Path, *, agent: str | None = "p2r_segments"
) -> dict[str, Any]:
    """A row for verl's RLHFDataset. Raises UsageError for a clip, and a text with a placeholder.

    `agent` names the agent loop that rewards it; None leaves it to verl's configuration.
    """
    row = {
        "data_source": question.data_source or "p2r",
        "prompt": [{"role": "user", "content": _with_places(question, template)}],
        **media_paths(question, media_root),
        "reward_model": {"style": "rule", "ground_truth": question.solution},
        "extra_info": {"index": question.row, "question": question_column(question)},
    }
    return row if agent is None else row | {"agent_name": agent}


def swift_row(question: VideoQuestion, template: str, media_root: Path) -> dict[str, Any]:
    """A row for ms-swift's GRPO. Raises UsageError for a clip, and a text with a placeholder."""
    return {
        "messages": [{"role": "user", "content": _with_places(question, template)}],
        **media_paths(question, media_root),
        "question": question_column(question),
        "solution": question.solution,
    }


def _with_places(question: VideoQuestion, template: str) -> str:
    if any(ref.span for ref in question.media):
        raise UsageError(
            f"question {question.question_id} (row {question.row}) is about a part of a file, and"
            " these rows name whole ones; leave it out, or give verl an export of a build"
            " (--export verl), which holds start and end"
        )
    try:
        return with_places(question, task_prompt(question, template).text)
    except ValueError as error:
        raise UsageError(str(error)) from None
