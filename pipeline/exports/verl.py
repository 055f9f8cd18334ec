"""verl's layout for RL: prompts with gold answers in Parquet, media as `qwen_vl_utils` reads them.

    python -m verl.trainer.main_ppo data.train_files=OUT/verl/train-00000-of-00001.parquet ...

Rewards and advantages of ours plug in: `train.integrations.verl_rewards` and
`train.integrations.verl_plugin` read the question from `extra_info`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from media.sampling import FrameSpec
from pipeline.exports.parquet_files import (
    PARQUET_NAMES,
    replaced_folder,
    verl_schema,
    write_parquet,
)
from pipeline.exports.rows import MARKS_IN_TEXT, Exported, LeftOut, run_options
from schemas.ledger.ledger import Ledger
from schemas.prompting import task_prompt
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import MEDIA_ERRORS
from schemas.trainer_rows import foreign_mark, media_paths, question_column, with_places

_UNREADABLE = "SELECT question_id FROM rejections WHERE reason IN (SELECT unnest(?))"
_MEDIA_UNREADABLE = "their media could not be read"
_ANY_RATE = 2.0  # frames a second, where the number of frames decides


def export_verl(ledger: Ledger, out: Path, media_root: Path) -> Exported:
    """Write `OUT/verl/*.parquet`: every question whose media could be read, in the order of the
    question file; RL needs those that gave no trace too.

    The user's turn begins with one `<video>` or `<image>` for each of `videos` and `images`, whose
    paths are absolute, below `media_root`. A clip has `video_start` and `video_end`, in seconds.
    How many frames are seen follows `--frames` of the build. A column of media, or of clips, exists
    only if some question has such. Texts that hold a mark of media or turns by themselves are left
    out and counted.
    """
    folder = out / "verl"
    left_out = LeftOut()
    kinds, has_clips = _media_kinds(ledger)
    frames = frame_settings(run_options(ledger)["frames"])
    rows = (
        _row(question, media_root, frames, has_clips) for question in _expressible(ledger, left_out)
    )
    schema = verl_schema(kinds, has_clips=has_clips)
    with replaced_folder(folder, PARQUET_NAMES) as fresh:
        num_rows = write_parquet(rows, fresh, schema)
    return Exported(folder, num_rows, left_out.number, left_out.why, media_root.absolute())


def frame_settings(policy: str) -> dict[str, float | int]:
    """What `qwen_vl_utils` is given for a frame policy: `fps` with least and most frames.

    `uniform:16` is 16 frames at any rate, fewer where the clip has fewer. Two at least, and an even
    number: Qwen's vision towers read frames in pairs.
    """
    spec = FrameSpec.parse(policy)
    most = max(2, spec.max_frames)
    if spec.policy.startswith("uniform"):
        return {"fps": _ANY_RATE, "min_frames": most, "max_frames": most}
    rate = float(spec.policy.removeprefix("fps:").partition(",")[0])
    return {"fps": rate, "min_frames": 2, "max_frames": most}


def _media_kinds(ledger: Ledger) -> tuple[list[str], bool]:
    """Which kinds of media there are, and whether any is a part of its file."""
    kinds, has_clips = set(), False
    for question in _expressible(ledger, LeftOut()):
        kinds |= {ref.kind for ref in question.media}
        has_clips = has_clips or any(ref.span for ref in question.media)
    return [kind for kind in ("video", "image") if kind in kinds], has_clips


def _expressible(ledger: Ledger, left_out: LeftOut) -> Iterator[VideoQuestion]:
    reasons = sorted(reason.value for reason in MEDIA_ERRORS)
    unreadable = {question_id for (question_id,) in ledger.query(_UNREADABLE, [reasons])}
    for question in ledger.questions():
        if question.question_id in unreadable:
            left_out.add(_MEDIA_UNREADABLE)
        elif foreign_mark(task_prompt(question).text):
            left_out.add(MARKS_IN_TEXT)
        else:
            yield question


def _row(
    question: VideoQuestion, media_root: Path, frames: Mapping[str, float], has_clips: bool
) -> dict[str, Any]:
    paths = media_paths(question, media_root)
    videos = [ref for ref in question.media if ref.kind == "video"]
    places = zip(videos, paths.get("videos", ()), strict=True)
    row = {
        "data_source": question.data_source or "p2r",
        "prompt": [{"role": "user", "content": with_places(question, task_prompt(question).text)}],
        "videos": [
            {"video": path, **frames, **(_span(ref) if has_clips else {})} for ref, path in places
        ],
        "images": [{"image": path} for path in paths.get("images", ())],
        "ability": question.problem_type.value,
        "reward_model": {"style": "rule", "ground_truth": question.solution},
        "extra_info": {
            "index": question.row,
            "question_id": question.question_id,
            "question": question_column(question),
        },
    }
    return {name: value for name, value in row.items() if value}


def _span(ref: MediaRef) -> dict[str, float | None]:
    """A whole file among clips begins at 0: a column has a value in every row."""
    start, end = ref.span or (0.0, None)
    return {"video_start": start, "video_end": end}
