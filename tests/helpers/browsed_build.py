"""A build's folder with media, whose pages `pipeline.browse` writes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.built_ledger import CONFIG, add_attempt, built_ledger, question
from helpers.html_tags import Tags
from helpers.media_clips import make_clip

from pipeline.browse import main
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import ReaderCheckRow, SufficiencyRow
from schemas.questions import VideoQuestion

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
HOSTILE_ROW = 40
BAD_CODEC_ROW, READ_ROW = 1, 4


def make_build(folder: Path) -> Path:
    """The folder of a finished build of `built_ledger`, one hostile row more. Rows 0 and 40 have a
    clip that browsers play, row 1 one that they do not, the others none."""
    out, root = folder / "out", folder / "media"
    out.mkdir(parents=True)
    (root / "clips").mkdir(parents=True)
    make_clip(root / "clips" / "000.mp4", num_frames=8, rate=4)
    make_clip(root / "clips" / "001.mp4", "mpeg4", num_frames=8, rate=4)
    make_clip(root / "clips" / f"{HOSTILE_ROW:03d}.mp4", num_frames=8, rate=4)
    config = {
        **CONFIG,
        "media_root": str(root),
        "output_dir": str(out),
        "frame_cache": str(folder / "frames"),
        "questions": str(folder / "q.json"),
    }
    (folder / "q.json").write_text("[]")
    (out / "config.json").write_text(json.dumps(config))
    with built_ledger(out, **config) as ledger:
        hostile = question(HOSTILE_ROW, problem=HOSTILE, data_source=HOSTILE)
        ledger.add_question(hostile)
        output = f"<observation>{HOSTILE}</observation><think>t</think><answer>B</answer>"
        # The judge's second reply is stored before its first.
        second = SufficiencyRow(question_id=hostile.question_id, draw=0, judge_draw=1)
        ledger.add_sufficiency(replace(second, verdict="yes", reply="and again"))
        add_attempt(ledger, hostile, observation=HOSTILE, output=output)
        _read(ledger, question(READ_ROW))
    return out


def _read(ledger: Ledger, asked: VideoQuestion) -> None:
    """A text reader answered without the video, and from the observation."""
    check = ReaderCheckRow(
        question_id=asked.question_id,
        evidence="none",
        reader="claude:reader",
        prompt_id="prompt-reader",
        samples=4,
        correct=1,
        unscored=1,
        rate=0.25,
        verdict="no",
    )
    ledger.add_reading(check, [])
    seen = replace(check, evidence="observation", correct=4, unscored=0, rate=1.0, verdict="yes")
    ledger.add_reading(replace(seen, blind_rate=0.25), [])


def browse(out: Path, *options: str) -> dict[str, str]:
    """Write the pages; their texts by name."""
    assert main([str(out), *options]) == 0
    return {path.name: path.read_text("utf-8") for path in sorted((out / "browse").iterdir())}


def articles(pages: dict[str, str]) -> list[str]:
    """The markup of every row, in order."""
    return [
        part
        for name, page in pages.items()
        if name.startswith("rows-")
        for part in page.split("<article ")[1:]
    ]


def data_of(page: str, name: str) -> Any:
    """What a script element with data holds."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def targets(page: str) -> tuple[set[str], set[str]]:
    """The ids of a page, and the places in it that it links to."""
    tags = Tags(page).tags
    ids = {values["id"] or "" for _, values in tags if "id" in values}
    links = {values.get("href") or "" for tag, values in tags if tag == "a"}
    return ids, {link[1:] for link in links if link.startswith("#")}
