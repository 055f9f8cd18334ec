"""The fuzzing itself: it finds what is planted, survives it, and says how to repeat it."""

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import run
from fuzz.harness import Kind, run_case
from fuzz.planted import FAULTY, SOUND, open_faulty

pytestmark = pytest.mark.heavy


def fuzzed(
    kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(run, "KINDS", (kind,))
    words = ["--seed", "5", "--jobs", "2", "--minutes", "0.05", "--output-dir", str(folder)]
    status = run.main([*words, *more])
    return status, json.loads((folder / "fuzz.json").read_text("utf-8"))


def test_every_planted_fault_is_found_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = fuzzed(FAULTY, tmp_path, monkeypatch)
    assert status == 1
    words = "\n".join(one["words"] for one in report["findings"])
    assert len(report["findings"]) == 4
    assert "promised otherwise" in words
    assert "ended by itself" in words
    assert "case 3 ended its process with status 7" in words
    assert "case 4 did not end within 1 s" in words
    assert report["kinds"]["faulty"]["counts"]["tries"] >= 10
    printed = capsys.readouterr().out
    for number in (1, 2, 3, 4):
        assert f"python tests/fuzz/run.py --kind faulty --seed 5 --case {number}" in printed


def test_a_run_without_a_finding_ends_with_0_and_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "runs.jsonl"
    record.write_text('{"what": "an earlier run"}\n', "utf-8")
    status, report = fuzzed(SOUND, tmp_path / "out", monkeypatch, "--record", str(record))
    assert status == 0
    assert report["findings"] == []
    lines = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert lines[0]["what"] == "an earlier run"
    assert lines[1] == report
    assert report["seed"] == 5
    assert report["versions"]["pydantic"]


@pytest.mark.slow
def test_too_few_tries_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Kind("sound", SOUND.opener, "tries", 400_000_000, 1.0)
    status, report = fuzzed(wanted, tmp_path, monkeypatch)
    assert status == 1
    assert report["findings"] == []


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    with open_faulty(tmp_path) as runner:
        found = [run_case(FAULTY, runner, seed, 1)[1].words for seed in (5, 5, 6)]
    assert found[0] == found[1] != found[2]
