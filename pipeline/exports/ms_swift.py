"""ms-swift's layout: chats in JSON Lines with absolute paths, for fine-tuning and for GRPO.

    swift sft --model M --dataset OUT/ms-swift/p2r_video.jsonl
    swift rlhf --rlhf_type grpo --model M --dataset OUT/ms-swift/p2r_video.jsonl \\
        --external_plugins my_plugin.py --reward_funcs p2r

`my_plugin.py` registers the rewards of `train.integrations.swift_rewards`, which read `question`.

A clip of a file could only be given as a list of its frames, and then without their times: such
questions are left out and counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.exports.parquet_files import replaced_folder
from pipeline.exports.rows import LINES_NAMES, Exported, LeftOut, placed_messages, write_lines
from schemas.ledger.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.trainer_rows import media_paths, question_column


def export_ms_swift(ledger: Ledger, out: Path, media_root: Path) -> Exported:
    """Write `OUT/ms-swift/p2r_video.jsonl`, `p2r_image.jsonl` and `p2r_mixed.jsonl` (videos and
    images in one question) as far as there are rows.

    A row has `messages`, whose user turn begins with one `<video>` or `<image>` for each path in
    `videos` and `images`. Paths are absolute, below `media_root`, as ms-swift wants them.

    For its GRPO, which leaves the assistant's turn out, there are `question`, from which our
    rewards are computed, and `solution`, the gold answer in tags, which its own rewards read; its
    fine-tuning leaves these two out. Texts that hold a mark of media or turns by themselves are
    left out and counted.
    """
    folder = out / "ms-swift"
    left_out = LeftOut()
    rows = (
        (question, _row(question, messages, media_root))
        for question, messages in placed_messages(ledger, left_out, "ms-swift")
    )
    with replaced_folder(folder, LINES_NAMES) as fresh:
        counts = write_lines(rows, fresh)
    return Exported(
        folder,
        num_rows=sum(counts.values()),
        num_left_out=left_out.number,
        why_left_out=left_out.why,
        media_below=media_root.absolute(),
    )


def _row(
    question: VideoQuestion, messages: Sequence[Mapping[str, str]], media_root: Path
) -> dict[str, Any]:
    return {
        "messages": messages,
        **media_paths(question, media_root),
        "question": question_column(question),
        "solution": f"<answer>{question.solution}</answer>",
    }
