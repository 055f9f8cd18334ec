"""Running `python -m pipeline.build_cot` as a user does, and reading what it made."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from servers.model_server import TEST_KEY

TEACHER, JUDGE = "claude:claude-sonnet-5-5", "claude:claude-haiku-5-5"


def build_command(
    questions: Path, out: Path, *extra: str, media_root: Path | None = None
) -> list[str]:
    """The command line of a build with Claude as teacher and judge."""
    return [
        sys.executable,
        "-m",
        "pipeline.build_cot",
        "--questions",
        str(questions),
        "--media-root",
        str(media_root or questions.parent),
        "--generator",
        TEACHER,
        "--judge",
        JUDGE,
        "--frame-cache",
        str(out.parent / "frame-cache"),
        *([] if "--check" in extra else ["--out", str(out)]),
        *extra,
    ]


def environment(url: str | None, **more: str) -> dict[str, str]:
    """A user's environment, with the model server in place of the real one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    if url is not None:
        kept |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": TEST_KEY}
    return kept | more


def run_build(
    command: list[str], url: str | None, *, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        command, env=environment(url), capture_output=True, text=True, timeout=timeout, check=False
    )


def dataset_rows(out: Path) -> list[dict[str, Any]]:
    """The dataset, in its order."""
    parts = sorted((out / "dataset").glob("*.parquet"))
    assert parts, f"no dataset in {out}"
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def query(out: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows from the ledger of a build that is not running."""
    with duckdb.connect(str(out / "cot.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def rejections(out: Path) -> dict[str, tuple[str, str]]:
    """Step and reason of each rejected question, by problem id."""
    rows = query(
        out,
        "select problem_id, step, reason from rejections join questions using (question_id)",
    )
    return {problem_id: (step, reason) for problem_id, step, reason in rows}
