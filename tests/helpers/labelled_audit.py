"""An audit with real clips, hostile texts and a broken file, ready to be labelled."""

from pathlib import Path
from typing import Literal

import numpy as np

from judges.audits.store import AuditItem, AuditStore, Stratum
from sandbox.world.render import write_image, write_video
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import start_run

HOSTILE = (
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    " **bold** ${document.title = 'owned'} {{7 * 7}} [x](javascript:alert(1)) </blockquote>"
)
# Words that only the judge's side of a row has: none may reach a page or a file.
JUDGES_SIDE = ("oracle:secret-judge", "prompt-of-the-judge", "stratum-of-the-judge")


def make_media(root: Path) -> Path:
    """Three playable clips, one clip that breaks off, one HTML file that says it is a video."""
    root.mkdir()
    for clip in range(3):
        frames = np.zeros((20, 64, 96, 3), np.uint8)
        for number, frame in enumerate(frames):
            frame[:] = (40 + 60 * clip, 8 * number, 120)
        write_video(root / f"{clip}.mp4", frames, fps=10, crf=28)
    (root / "broken.mp4").write_bytes((root / "0.mp4").read_bytes()[:200])
    (root / "page.html").write_text("<script>document.title = 'owned'</script>")
    write_image(root / "still.png", np.full((1, 64, 96, 3), 90, np.uint8))
    return root


def make_audit(folder: Path, media_root: Path | None, num_rows: int = 20) -> Path:
    """`num_rows` rows in a blind order; row 1 has hostile texts, row 2 a broken file."""
    items = [_item(row) for row in range(num_rows)]
    source = {"kind": "sufficiency", "seed": 0}
    if media_root is not None:
        source["media_root"] = str(media_root)
    with AuditStore.create(folder, start_run("sample", {})) as store:
        stratum = Stratum(JUDGES_SIDE[2], "yes", "multiple choice", "kitchen", 100, num_rows)
        store.add_sample(items, [stratum], source)
    return folder


def _item(row: int) -> AuditItem:
    texts = {
        1: HOSTILE,
        3: "  ",
    }
    hostile = HOSTILE if row == 1 else ""
    question = VideoQuestion(
        problem=f"What happens in scene {row}? {hostile}",
        options=(
            "A. The cup falls",
            "B. The cup stands",
            f"C. Neither {HOSTILE if row == 1 else ''}",
        ),
        solution="B",
        media=_media(row),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        data_source="kitchen",
        row=row,
    )
    return AuditItem(
        item_id=f"item-{row:03d}",
        question=question,
        observation=texts.get(row, f"In scene {row} a hand puts the cup upright at 0.4 s."),
        source_verdict="yes" if row % 2 else "no",
        source_judge=JUDGES_SIDE[0],
        source_prompt_id=JUDGES_SIDE[1],
        video=question.media[0].path,
        stratum=JUDGES_SIDE[2],
        weight=5.0,
        position=row,
    )


def _media(row: int) -> tuple[MediaRef, ...]:
    def ref(kind: Literal["video", "image"], path: str) -> MediaRef:
        return MediaRef(kind=kind, path=path)

    if row == 2:
        return (ref("video", "broken.mp4"),)
    if row == 4:
        return (ref("video", "1.mp4"), ref("image", "still.png"))
    if row == 5:
        return (ref("video", "page.html"), ref("video", "../outside.mp4"))
    return (ref("video", f"{row % 3}.mp4"),)
