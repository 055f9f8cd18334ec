"""A rendered world on disk: its configuration, its questions, and the truth about each clip.

`sandbox.clips` writes the folder; the oracle and the commands that compare with the truth read it.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from cli.config import UsageError
from sandbox.world.clips import Clip, WorldConfig
from sandbox.world.facts import Fact, facts_of
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion
from schemas.serialization import error_words

_CACHED_CLIPS, _CACHED_FACTS = 1024, 16_384


class RenderedWorld:
    """The truth of the world under `root`, read when it is needed. Raises UsageError.

    `facts(path)` are the statements that hold for the clip at `path`, in order of time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        described = self._read_description()
        try:
            self.id = str(described["world_id"])
            self.config = WorldConfig.from_json(described["world"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._is_none(error_words(error)) from None
        self.clip = lru_cache(maxsize=_CACHED_CLIPS)(self._read_clip)
        self.facts = lru_cache(maxsize=_CACHED_FACTS)(self._facts_of)

    @property
    def questions_file(self) -> Path:
        """The questions of the world, in the Video-R1 format."""
        return self._root / "questions.json"

    def clip_questions(self, limit: int | None = None) -> list[VideoQuestion]:
        """The first `limit` questions about clips, without those about stills. Raises UsageError
        where there are none."""
        try:
            rows = list(read_questions(self.questions_file, format="video-r1"))
        except (OSError, ValueError) as error:
            raise UsageError(f"the world's questions cannot be read: {error}") from None
        found = [row for row in rows if isinstance(row, VideoQuestion) and row.data_type == "video"]
        if not found:
            raise UsageError(f"{self.questions_file} has no questions about clips")
        return found[:limit]

    def _read_description(self) -> dict[str, Any]:
        try:
            described: dict[str, Any] = json.loads((self._root / "world.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._is_none(str(error)) from None
        return described

    def _is_none(self, why: str) -> UsageError:
        return UsageError(
            f"{self._root} holds no world of the sandbox ({why}); render one with python -m"
            " sandbox.clips and give its folder as --media-root"
        )

    def _read_clip(self, path: str) -> Clip:
        """What happens in the clip at `path`, relative to the world's folder."""
        file = self._root / "truth" / f"{Path(path).stem}.json"
        try:
            return Clip.from_json(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"there is no truth about {path} in {file} ({error}): give the world that the"
                " questions are about as --media-root"
            ) from None

    def _facts_of(self, path: str) -> tuple[Fact, ...]:
        return facts_of(self.clip(path), self.config)
