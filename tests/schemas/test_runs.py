"""Provenance of a run: ids, commit, versions, no secrets."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import runs
from schemas.runs import checkout_state, package_versions, start_run
from schemas.serialization import redact


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_run_ids_sort_by_start_time_and_never_repeat() -> None:
    run_ids = [start_run("x", {}).run_id for _ in range(5)]
    assert run_ids == sorted(run_ids)
    assert len(set(run_ids)) == 5


def test_a_run_is_json_and_started_now_in_utc() -> None:
    run = start_run(["python", "-m", "pipeline.build_cot", "--out", "a b"], {"limit": 3})
    stored = json.loads(json.dumps(run.as_json()))
    assert stored["command"] == "python -m pipeline.build_cot --out 'a b'"
    assert stored["config"] == {"limit": 3}
    started = datetime.fromisoformat(run.started_at)
    assert started.utcoffset() is not None
    assert abs((datetime.now(UTC) - started).total_seconds()) < 60


def test_versions_are_read_without_importing_the_packages() -> None:
    assert package_versions()["p2r"]
    assert package_versions()["duckdb"][0].isdigit()
    assert "not-installed" not in package_versions()
    code = (
        "import sys; from schemas.runs import start_run; start_run('x', {}); "
        "print([m for m in ('duckdb', 'torch', 'pyarrow', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that tracks one source file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "source.py").write_text("1\n")
    git(tmp_path, "add", "source.py")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_the_commit_is_that_of_the_checkout_the_code_runs_from(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    state = checkout_state(checkout / "source.py")
    monkeypatch.delenv("GIT_DIR")
    assert state == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_changed_tracked_file_makes_the_checkout_dirty_and_an_output_folder_does_not(
    checkout: Path,
) -> None:
    (checkout / "OUT").mkdir()
    (checkout / "OUT" / "cot.duckdb").write_text("x")
    assert checkout_state(checkout / "source.py")[1] is False
    (checkout / "source.py").write_text("2\n")
    assert checkout_state(checkout / "source.py")[1] is True


def test_code_installed_inside_somebody_elses_checkout_has_no_commit(checkout: Path) -> None:
    installed = checkout / ".venv" / "runs.py"
    installed.parent.mkdir()
    shutil.copy(runs.__file__, installed)
    assert checkout_state(installed) == (None, None)


def test_no_commit_outside_git_or_without_git(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert checkout_state(tmp_path_factory.mktemp("plain") / "source.py") == (None, None)
    monkeypatch.setenv("PATH", "")
    assert checkout_state(checkout / "source.py") == (None, None)


def test_no_secret_reaches_the_command_line_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_API_KEY", "correct-horse-battery")
    line = (
        "python -m x --header correct-horse-battery "
        "--judge openai:m@https://me:pw12@host/v1?key=abc "
        "--generator claude:m sk-ant-api03-AAAA_bbbb-1234 --api-key-env MY_SERVER_API_KEY "
        "--max-new-tokens 1024"
    )
    command = start_run(line, {}).command
    for secret in ("correct-horse-battery", "me:pw12", "key=abc", "sk-ant"):
        assert secret not in command
    assert "--api-key-env MY_SERVER_API_KEY --max-new-tokens 1024" in command
    assert "--judge openai:m@https://[redacted]@host/v1?key=[redacted]" in command


def test_ordinary_text_is_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "video")
    text = "video: openai:qwen@http://localhost:8000/v1 task-sk-lampshades a@b.org 100 % of tokens"
    assert redact(text) == text
