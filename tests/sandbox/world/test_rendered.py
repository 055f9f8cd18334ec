"""A world's folder is read, or refused in a sentence that names it."""

import json
from pathlib import Path

import pytest

from cli.config import UsageError
from sandbox.world.clips import PRESETS
from sandbox.world.rendered import RenderedWorld


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "7", '{"a": 1}', '{"world_id": "w", "world": {"frames": "x"}}']
)
def test_a_damaged_description_is_refused_with_its_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(content, "utf-8")
    with pytest.raises(UsageError, match=rf"^{tmp_path} holds no world of the sandbox \(.+\); ren"):
        RenderedWorld(tmp_path)


@pytest.mark.parametrize("questions", [b"[]", b'{"a": 1}', b"\x00\xff", None])
def test_a_world_without_questions_about_clips_is_refused(
    questions: bytes | None, tmp_path: Path
) -> None:
    if questions is not None:
        (tmp_path / "questions.json").write_bytes(questions)
    known = {"world_id": "world-1", "world": PRESETS["tiny"].to_json()}
    (tmp_path / "world.json").write_text(json.dumps(known), "utf-8")
    with pytest.raises(UsageError, match=r"questions"):
        RenderedWorld(tmp_path).clip_questions()
