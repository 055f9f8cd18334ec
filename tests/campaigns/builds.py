"""Kills of a large build with the sandbox's oracle: the ledger in the end is that of a calm build.

Some kills hit the start, the others fall after a drawn number of rows. Nothing of a run that was
killed may be lost, doubled or different: dataset, outcomes, and the calls that were recorded.
"""

import json
import time
from pathlib import Path
from typing import Any

from campaigns.killing import (
    Campaign,
    CampaignError,
    Memory,
    Moment,
    killed_runs,
    run_to_end,
)
from helpers.builds import dataset_rows, query

_TEACHER = "oracle:7,wrong=0.15,malformed=0.05,leak=0.05,insufficient=0.1"
_JUDGE = "oracle:7,false_yes=0.02,false_no=0.02"
_STILLS, _CLIPS = 60, 12
_SHARE_AT_START = 0.2
_STATUSES = frozenset({0, 1})
_COMPARED = {
    "outcomes": """
        select q."row", r.step, r.reason, r.detail, a.output from questions q
        left join rejections r using (question_id) left join attempts a using (question_id)
        order by all""",
    "calls": "select call_key, step, status, count(*) from calls group by all order by all",
}


def _words(world: Path, out: Path) -> list[str]:
    return [
        "pipeline.build_cot",
        *("--questions", str(world / "questions.json"), "--media-root", str(world)),
        *("--generator", _TEACHER, "--judge", _JUDGE, "--concurrency", "16"),
        *("--frame-cache", str(world.parent / "frames"), "--output-dir", str(out)),
    ]


def _finished_rows(out: Path) -> int:
    path = out / "progress.json"
    return int(json.loads(path.read_text("utf-8"))["settled"]) if path.exists() else 0


def _moment(campaign: Campaign, out: Path, kill: int) -> Moment:
    """When to kill: soon after the start, or after so many more rows that enough are left for the
    other kills."""
    draw = campaign.draw(kill)
    if draw.random() < _SHARE_AT_START:
        seconds = draw.uniform(0.2, 4.0)
        return "at the start", lambda passed: passed >= seconds
    left = campaign.size - _finished_rows(out)
    more = 1 + int(draw.random() * left / (campaign.kills - kill + 2))
    enough = _finished_rows(out) + more
    moment = draw.uniform(0.0, 1.0)  # progress is written once a second: kill between two looks
    reached: list[float] = []

    def is_time(passed: float) -> bool:
        if not reached and _finished_rows(out) >= enough:
            reached.append(passed)
        return bool(reached) and passed >= reached[0] + moment

    return f"after {more} more rows", is_time


def _differences(one: Path, other: Path) -> list[str]:
    found = [name for name, sql in _COMPARED.items() if query(one, sql) != query(other, sql)]
    if dataset_rows(one) != dataset_rows(other):
        found.append("dataset")
    return found


def run_builds(campaign: Campaign) -> dict[str, Any]:
    """The campaign; what came of it."""
    memory, started = Memory(campaign), time.monotonic()
    world = campaign.folder / "world"
    calm = campaign.folder / "calm"
    render = [
        *("sandbox.clips", "--output-dir", str(world), "--clips", str(_CLIPS)),
        *("--stills", str(_STILLS), "--num-questions", str(campaign.size)),
        *("--seed", str(campaign.seed)),
    ]
    memory.once("world", lambda: run_to_end(render, campaign.log))
    memory.once("calm", lambda: run_to_end(_words(world, calm), campaign.log, _STATUSES))
    runs = killed_runs(
        campaign,
        memory,
        lambda out: _words(world, out),
        lambda out, kill: _moment(campaign, out, kill),
        lambda out: f"{_finished_rows(out):,} of {campaign.size:,} rows",
        _STATUSES,
    )
    num_rows, num_calls = (
        query(calm, f"select count(*) from {table}")[0][0] for table in ("questions", "calls")
    )
    if num_rows != campaign.size:
        raise CampaignError(f"{num_rows} rows of {campaign.size}")
    return {
        "rows": num_rows,
        "calls": num_calls,
        "kills": len(memory.kills),
        "runs": len(runs),
        "differences": [f"{one.name}: {name}" for one in runs for name in _differences(calm, one)],
        "seconds": round(time.monotonic() - started),
    }
