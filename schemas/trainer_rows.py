"""What rows for other trainers have in common: places of media in a prompt, paths, the question.

Trainers such as LLaMA-Factory, ms-swift and verl read `<video>` and `<image>` in a text as places
of files, one for each:

    "<image><video>Which of the two shows more people?", images ["a.png"], videos ["b.mp4"]

A text that holds such a mark by itself cannot be given to them.
"""

import re
from pathlib import Path

from schemas.questions import VideoQuestion

# Places of media in any of the three, ms-swift's boxes and references, and tokens of chat templates
# as `<|im_end|>` and `<|video_pad|>`.
_MARK = re.compile(
    r"<(?:image|video|audio|start-image|bbox|ref-object|cot-process)>|</?img>"
    r"|<[|\N{FULLWIDTH VERTICAL LINE}][^<>|\n]{1,40}[|\N{FULLWIDTH VERTICAL LINE}]>"
)


def foreign_mark(*texts: str) -> str | None:
    """The first mark in `texts` that a trainer would read as a medium or a turn; None without."""
    found = (mark[0] for text in texts for mark in _MARK.finditer(text))
    return next(found, None)


def with_places(question: VideoQuestion, prompt: str) -> str:
    """`prompt` behind one place for each medium, `<video>` or `<image>`, in their order.

    Media come first, as `train.data.model_inputs` puts them. Raises ValueError for a prompt that
    holds a mark by itself.
    """
    mark = foreign_mark(prompt)
    if mark is not None:
        raise ValueError(
            f"question {question.question_id} (row {question.row}) contains {mark!r}, which"
            " LLaMA-Factory, ms-swift and verl read as a place for a file or as part of a turn;"
            " leave it out"
        )
    return "".join(f"<{ref.kind}>" for ref in question.media) + prompt


def media_paths(question: VideoQuestion, media_root: Path | None) -> dict[str, list[str]]:
    """`videos` and `images` as far as there are some, each in the question's order.

    Below `media_root`, or relative to it where it is None. Links are not followed: a hub's cache
    names what they lead to without an ending.
    """
    paths: dict[str, list[str]] = {}
    for ref in question.media:
        path = ref.path if media_root is None else str(media_root.absolute() / ref.path)
        paths.setdefault(f"{ref.kind}s", []).append(path)
    return paths


def question_column(question: VideoQuestion) -> str:
    """A question as the text of a dataset's column `question`, which our rewards read."""
    return question.model_dump_json(exclude_defaults=True)
