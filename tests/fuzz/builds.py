"""Whole small builds over a server that spoils its replies: `pipeline.build_cot` in this process.

Every row has one outcome, the exit status is a documented one, the screen and the folder hold no
traceback, no key, no character that acts; then a build of the mended server finishes the rest.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from fuzz.corrupting import SpoiltServer
from fuzz.harness import Case, Runner, working_folder
from fuzz.nasty import HOSTILE_WORDS, KEY
from fuzz.replies import check_ledger, menu_of
from fuzz.texts import promise
from helpers.build_world import brain, make_world

from cli.config import run_command
from pipeline import build_cot

_NUM_QUESTIONS = 24
_ON_SCREEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TRACEBACK = re.compile(r'File ".*", line \d+')
_TEACHER, _JUDGE = "claude:claude-sonnet-5-5", "claude:claude-haiku-5-5"


class _ServerThread:
    """A spoilt server in a loop of its own, for a command that owns the main thread's."""

    def __init__(self, server: SpoiltServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> SpoiltServer:
        self._thread.start()
        entering = asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop)
        return entering.result(30)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


def _hostile_world(case: Case, world: Path) -> Path:
    """The questions of the world, some with hostile sources, ids and paths."""
    rows: list[dict[str, Any]] = json.loads((world / "questions.json").read_text("utf-8"))
    draw = case.draw
    words = [one for one in HOSTILE_WORDS if KEY not in one]
    for row in rows:
        if draw.random() < 0.3:
            row["data_source"] = draw.choice(words)
        if draw.random() < 0.1:
            row["path"] = draw.choice(
                ("gone [/bold].png", "a\x1b[31m.mp4", "[test].mp4", "../x.mp4")
            )
    path = case.folder / "questions.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


def _build(words: list[str], out: Path) -> tuple[int, str]:
    """Exit status and all that was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            run_command(build_cot.PROG, lambda: build_cot.main(words))
        except SystemExit as end:
            status = end.code
    said = printed.getvalue()
    assert isinstance(status, int)
    promise(not _TRACEBACK.search(said), f"a traceback: {said[-800:]}")
    promise(not _ON_SCREEN.search(said), f"{_ON_SCREEN.search(said)} on the screen")
    promise(KEY not in said, "the key on the screen")
    for path in sorted(out.rglob("*")):
        if path.is_file():
            promise(KEY.encode() not in path.read_bytes(), f"the key in {path.name}")
    return status, said


def _outcomes(out: Path) -> Counter[int]:
    """How many outcomes each row of the file has."""
    with duckdb.connect(str(out / "cot.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            'select "row", count(r.question_id) + count(a.question_id) from questions'
            " left join rejections r using (question_id) left join accepted a using (question_id)"
            " group by all"
        ).fetchall()
    return Counter(dict(rows))


def run_builds(case: Case, world: Path) -> Counter[str]:
    """One build with its resume."""
    draw = case.draw
    out = case.folder / "out"
    words = [
        *("--questions", str(_hostile_world(case, world)), "--media-root", str(world)),
        *("--generator", _TEACHER, "--judge", _JUDGE, "--output-dir", str(out)),
        *("--frame-cache", str(world / "frame-cache"), "--concurrency", "4"),
        *("--retry-base-seconds", "0.001", "--retry-cap-seconds", "0.01"),
        *("--timeout-seconds", "2"),
        *(("--batch", "--batch-linger-seconds", "0.05") if draw.random() < 0.2 else ()),
    ]
    budget = ("--max-cost-usd", "0.02") if draw.random() < 0.3 else ()
    server = SpoiltServer(draw, brain, menu_of(draw), draw.choice((0.1, 0.4, 0.9)))
    with _ServerThread(server), working_folder(case.folder):
        os.environ |= {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
        first, said = _build([*words, *budget], out)
        promise(first in {0, 1, 2, 3}, f"status {first}: {said[-300:]}")
        server.is_healthy = True
        if first != 2:
            counts = _outcomes(out)
            promise(max(counts.values(), default=0) <= 1, "a row with two outcomes")
            promise(first == 3 or len(counts) == _NUM_QUESTIONS, f"{len(counts)} rows, {first}")
        status, said = _build([*words, "--retry-failed"], out)
        promise(status in {0, 1}, f"a healthy server, and status {status}: {said[-500:]}")
    counts = _outcomes(out)
    promise(
        set(counts.values()) == {1} and len(counts) == _NUM_QUESTIONS,
        f"outcomes by row at the end: {dict(counts)}",
    )
    check_ledger(out)
    return Counter({"builds": 1, "replies to builds": len(server.exchanges)})


@contextmanager
def open_builds(folder: Path) -> Iterator[Runner]:
    """One small world for all builds."""
    world = folder / "world"
    make_world(world, _NUM_QUESTIONS)
    yield lambda case: run_builds(case, world)
