"""A judge backend of the user's own, from a file that the product knows nothing of."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from sandbox.clips import main as render

PLUGIN = '''
from judges.backends.base import BackendInfo, Reply, StopReason, Usage
from judges.backends.registry import register_backend


class Hearsay:
    """Believes observations that mention a time."""

    def __init__(self, spec, model, timeout_seconds):
        self.info = BackendInfo(spec, "hearsay", model, endpoint=f"within {timeout_seconds:g} s")

    async def complete(self, request):
        word = "Yes" if " s" in request.text else "No"
        text = f"{self.info.model} thinks so. <judgement>{word}</judgement>"
        return Reply(text, StopReason.END, Usage(10, 3), model=self.info.model)

    async def count_tokens(self, request):
        return None

    def worst_case_tokens(self, request):
        return 10, request.max_tokens

    async def aclose(self):
        pass


async def open_backend(rest, *, spec, options):
    return Hearsay(spec, rest, options.timeout_seconds)


register_backend("hearsay", open_backend)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some clips of the synthetic world, and the plugin beside them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "hearsay.py").write_text(PLUGIN)
    assert (
        render(
            [
                "--out",
                str(folder / "world"),
                "--clips",
                "2",
                "--num-questions",
                "6",
                "--stills",
                "0",
                "--seed",
                "5",
            ]
        )
        == 0
    )
    return folder


def python(folder: Path, repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` as a user runs it, from a folder of the user's own."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def rows(file: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.heavy
def test_a_backend_of_a_plugin_judges_a_build_and_then_its_audit(
    folder: Path, repository: Path
) -> None:
    build = ["pipeline.build_cot", "--questions", "world/questions.json", "--media-root", "world"]
    build += ["--generator", "oracle:3", "--frame-cache", "cache", "--out", "built"]
    words = [*build, "--plugin", "hearsay.py", "--judge", "hearsay:aunt"]
    done = python(folder, repository, *words)
    assert done.returncode == 0, done.stderr
    judges = "SELECT DISTINCT judge FROM sufficiency_verdicts WHERE verdict IS NOT NULL"
    assert rows(folder / "built" / "cot.duckdb", judges) == [("hearsay:aunt",)]
    done = python(folder, repository, "judges.audit", "sample", "audit", "--build", "built")
    assert done.returncode == 0, done.stderr
    (folder / "run.yaml").write_text("plugin: [hearsay.py]\njudge: ['hearsay:uncle']\n")
    done = python(folder, repository, "judges.audit", "run", "audit", "--config", "run.yaml")
    assert done.returncode == 0, done.stderr
    assert "hearsay:uncle: verdicts in the sample" in done.stdout
    audit = folder / "audit" / "audit.duckdb"
    assert rows(audit, "SELECT DISTINCT judge FROM audit_verdicts") == [("hearsay:uncle",)]
    calls = "SELECT DISTINCT provider, model, endpoint, step, status FROM calls ORDER BY step"
    assert rows(audit, calls) == [
        ("hearsay", "uncle", "within 600 s", step, "ok") for step in ("audit", "check")
    ]


@pytest.mark.heavy
def test_without_the_plugin_the_backend_is_unknown_and_no_name_is_taken_twice(
    folder: Path, repository: Path
) -> None:
    build = ["pipeline.build_cot", "--questions", "world/questions.json", "--media-root", "world"]
    build += ["--generator", "oracle:3", "--out", "never"]
    done = python(folder, repository, *build, "--judge", "hearsay:aunt")
    assert done.returncode == 2
    assert "names no backend" in done.stderr
    (folder / "taken.py").write_text(PLUGIN.replace('("hearsay"', '("claude"'))
    done = python(folder, repository, *build, "--judge", "claude:x", "--plugin", "taken.py")
    assert done.returncode == 2
    assert "there is a backend called 'claude' already" in done.stderr
    assert not (folder / "never").exists()
