"""Which output folder a build resumes in. No model is ever called: every file of the questions is
missing.
"""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cli.config import EXIT_OK, EXIT_ROWS_FAILED, UsageError
from pipeline.build import build
from pipeline.options import BuildConfig
from pipeline.preview import print_estimate

pytestmark = pytest.mark.heavy

NOBODY = "openai:m@http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config(folder: Path, **options: Any) -> BuildConfig:
    (folder / "media").mkdir(exist_ok=True)
    questions = folder / "questions.jsonl"
    if not questions.exists():
        write_questions(questions, 2)
    given = {
        "questions": questions,
        "media_root": folder / "media",
        "output_dir": folder / "out",
        "generator": NOBODY,
        "judge": NOBODY,
    }
    return BuildConfig(**given | options)


def write_questions(path: Path, count: int) -> None:
    rows = [
        {
            "problem": f"What falls in {number}?",
            "solution": f"{number}",
            "media": [{"kind": "image", "path": "gone.png"}],
            "problem_type": "numerical",
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_a_question_file_that_changed_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    assert await build(config(tmp_path), []) == EXIT_ROWS_FAILED
    dataset = files(tmp_path / "out" / "dataset")
    write_questions(tmp_path / "questions.jsonl", 3)
    with pytest.raises(UsageError, match=r"questions\.jsonl has changed since the build in .*out"):
        await build(config(tmp_path), [])
    assert files(tmp_path / "out" / "dataset") == dataset
    write_questions(tmp_path / "questions.jsonl", 2)  # the old file again
    assert await build(config(tmp_path), []) == EXIT_ROWS_FAILED


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"threshold": 0.9}, "--threshold was 0.6, is now 0.9"),
        ({"attempts": 2}, "--attempts was 1, is now 2"),
        ({"frames": "uniform:8"}, '--frames was "uniform:16", is now "uniform:8"'),
        ({"allow_leaks": True}, "--allow-leaks was false, is now true"),
        ({"judge": "openai:n@http://127.0.0.1:9/v1"}, "--judge was "),
    ],
)
async def test_an_option_that_decides_what_a_row_becomes_may_not_change(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    saved = config(tmp_path).as_json()
    (out / "config.json").write_text(json.dumps(saved))
    (out / "progress.json").write_text("{}")  # it was begun
    with pytest.raises(UsageError) as caught:
        await build(config(tmp_path, **changed), [])
    assert sentence in str(caught.value)
    assert json.loads((out / "config.json").read_text()) == saved
    assert not (out / "cot.duckdb").exists()


async def test_speed_and_limits_may_change(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config(tmp_path).as_json()))
    changed = config(tmp_path, concurrency=3, limit=1, decode_workers=1)
    assert await build(changed, []) == EXIT_ROWS_FAILED
    assert json.loads((out / "config.json").read_text())["concurrency"] == 3


async def test_a_build_begun_under_the_former_names_of_options_resumes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    saved = config(tmp_path).as_json()
    former = {
        "video_decoder": "reader",
        "retries": "judge_retries",
        "timeout_seconds": "call_timeout_seconds",
    }
    old = {former.get(name, name): value for name, value in saved.items() if name != "plugin"}
    (out / "config.json").write_text(json.dumps(old))
    (out / "progress.json").write_text("{}")  # it was begun
    with pytest.raises(UsageError, match='--video-decoder was "decord", is now "pyav"'):
        await build(config(tmp_path, video_decoder="pyav"), [])
    assert await build(config(tmp_path, timeout_seconds=9), []) == EXIT_ROWS_FAILED
    assert json.loads((out / "config.json").read_text()) == saved | {"timeout_seconds": 9.0}


@pytest.mark.parametrize("option", ["temperature", "judge_temperature"])
async def test_a_temperature_that_a_shared_backend_does_not_take_is_refused(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "unused")
    both = {"generator": "claude:claude-haiku-5-5", "judge": "claude:claude-haiku-5-5"}
    flag = "--" + option.replace("_", "-")
    with pytest.raises(UsageError, match=f"^{flag} 0.5 was given, but claude:.* takes no"):
        await build(config(tmp_path, **both, **{option: 0.5}), [])
    assert not (tmp_path / "out").exists()


async def test_a_format_that_an_earlier_run_wrote_is_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await build(config(tmp_path, export=("videop2r",)), [])
    (part,) = (tmp_path / "out" / "videop2r").iterdir()
    written = part.read_bytes()
    part.write_bytes(b"of yesterday")
    await build(config(tmp_path), [])
    assert part.read_bytes() == written
    assert "videop2r: rows 0 (an earlier run asked for this format)" in capsys.readouterr().err


async def test_a_ledger_without_its_options_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cot.duckdb").write_text("of another day")
    with pytest.raises(UsageError, match=r"holds cot\.duckdb, but not the config\.json"):
        await build(config(tmp_path), [])


async def test_a_build_whose_ledger_is_gone_is_not_paid_again(tmp_path: Path) -> None:
    await build(config(tmp_path), [])
    (tmp_path / "out" / "cot.duckdb").rename(tmp_path / "moved")
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"its ledger \(cot.duckdb\) is gone: all would be asked"):
        await build(config(tmp_path), [])
    assert files(tmp_path) == before
    (tmp_path / "moved").rename(tmp_path / "out" / "cot.duckdb")
    await build(config(tmp_path), [])


async def test_an_output_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="is a file; give a folder"):
        await build(config(tmp_path), [])


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        await build(config(tmp_path, output_dir=tmp_path / "file" / "out"), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_cost_usd": 1.0}, "price of model 'm'"), ({"batch": True}, "takes batches")],
)
async def test_a_build_that_cannot_be_paid_leaves_nothing_behind(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await build(config(tmp_path, **options), [])
    assert not (tmp_path / "out").exists()


async def test_who_does_not_get_the_ledger_does_not_change_the_saved_options(
    tmp_path: Path,
) -> None:
    assert await build(config(tmp_path, limit=1), []) == EXIT_ROWS_FAILED
    saved = (tmp_path / "out" / "config.json").read_bytes()
    with duckdb.connect(str(tmp_path / "out" / "cot.duckdb")) as holder:
        holder.execute("select 1")
        with pytest.raises(UsageError):
            await build(config(tmp_path, limit=2), [])
    assert (tmp_path / "out" / "config.json").read_bytes() == saved
    assert await build(config(tmp_path, limit=2), []) == EXIT_ROWS_FAILED
    assert (tmp_path / "out" / "config.json").read_bytes() != saved


async def test_a_quote_for_a_backend_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no backend"):
        await print_estimate(config(tmp_path, generator="claud:m", dry_run=True))


async def test_a_quote_is_a_run_that_ended(tmp_path: Path) -> None:
    assert await build(config(tmp_path), []) == EXIT_ROWS_FAILED
    assert await print_estimate(config(tmp_path, dry_run=True)) == EXIT_OK
    with duckdb.connect(str(tmp_path / "out" / "cot.duckdb"), read_only=True) as ledger:
        rows = ledger.execute("select exit_status from runs order by started_at").fetchall()
    assert rows == [(EXIT_ROWS_FAILED,), (EXIT_OK,)]
