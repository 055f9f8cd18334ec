"""LLaMA-Factory's layout: chats in JSON Lines, and `dataset_info.json` that names their columns.

dataset_dir: OUT/llamafactory
dataset: p2r_video
media_dir: the folder that was given as --media-root
template: qwen2_vl
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.exports.parquet_files import replaced_folder
from pipeline.exports.rows import LINES_NAMES, Exported, LeftOut, placed_messages, write_lines
from schemas.ledger.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.trainer_rows import media_paths

LLAMAFACTORY_NAMES = ("dataset_info.json", *LINES_NAMES)
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}
_MEDIA_COLUMNS = {
    "p2r_video.jsonl": ("videos",),
    "p2r_image.jsonl": ("images",),
    "p2r_mixed.jsonl": ("images", "videos"),
}


def export_llamafactory(ledger: Ledger, out: Path) -> Exported:
    """Write `OUT/llamafactory/`: the datasets `p2r_video`, `p2r_image` and `p2r_mixed` (videos and
    images in one question) as far as there are rows, and `dataset_info.json`.

    A row has `messages`, whose user turn begins with one `<video>` or `<image>` for each path in
    `videos` and `images`. Paths are relative: `media_dir` names their folder. Left out and counted
    are questions about a part of a file, and texts that hold such a mark by themselves.
    """
    folder = out / "llamafactory"
    left_out = LeftOut()

    def rows() -> Iterator[tuple[VideoQuestion, Mapping[str, Any]]]:
        for question, messages in placed_messages(ledger, left_out, "LLaMA-Factory"):
            yield question, {"messages": messages, **media_paths(question, None)}

    with replaced_folder(folder, LLAMAFACTORY_NAMES) as fresh:
        counts = write_lines(rows(), fresh)
        info = {name.removesuffix(".jsonl"): _description(name) for name in counts}
        text = json.dumps(info, indent=2) + "\n"
        (fresh / "dataset_info.json").write_text(text, encoding="utf-8")
    return Exported(folder, sum(counts.values()), left_out.number, left_out.why)


def _description(name: str) -> dict[str, Any]:
    """What `dataset_info.json` says of a file: OpenAI's roles in the ShareGPT layout."""
    columns = ("messages", *_MEDIA_COLUMNS[name])
    return {
        "file_name": name,
        "formatting": "sharegpt",
        "columns": {column: column for column in columns},
        "tags": _TAGS,
    }
