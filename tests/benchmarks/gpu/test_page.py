"""The page of GPU figures is what its run's JSON says, and says nothing without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.page import PUBLISHED, main, page_of


def report(**more: Any) -> dict[str, Any]:
    """Of a run with one part that was measured and one that failed."""
    result = {
        "seconds": {"trl": [2.0, 4.0, 3.0], "shared": [1.0, 1.5, 1.25]},
        "times faster than trl, seconds": {"trl": 1.0, "shared": 2.4},
        "peak MB above the model": {"trl": 900, "shared": 300},
        "ceiling (tokens of the language model)": 3.14,
    }
    parts = [
        {
            "name": "learner_pass_3b",
            "title": "Learner's pass, 3B",
            "command": "python benchmarks/learner_pass.py --shape 3b",
            "status": "measured",
            "result": result,
        },
        {
            "name": "learner_pass_7b",
            "title": "Learner's pass, 7B",
            "command": "python benchmarks/learner_pass.py --shape 7b",
            "status": "failed",
            "detail": "torch.OutOfMemoryError: CUDA out of memory",
        },
    ]
    return {
        "is_dry": False,
        "began": "2030-01-02T03:04:05+00:00",
        "commit": "abcdef",
        "hardware": {"gpu": "NVIDIA H200", "processors": 16},
        "versions": {"torch": "2.11.0"},
        "parts": parts,
        **more,
    }


def test_the_published_page_is_that_of_the_published_run() -> None:
    run = PUBLISHED / "gpu.json"
    made = json.loads(run.read_text()) if run.exists() else None
    assert (PUBLISHED / "gpu.md").read_text() == page_of(made)


def test_without_a_run_the_page_has_no_figures() -> None:
    lines = page_of(None).splitlines()
    assert lines[2] == "Not yet measured."
    assert not [line for line in lines if "|" in line]


def test_each_part_has_its_command_and_its_figures_or_what_went_wrong() -> None:
    page = page_of(report())
    assert "$ python benchmarks/learner_pass.py --shape 3b" in page
    assert "| trl | 3.000 (2.000 to 4.000) | 1.00 | 900 |" in page
    assert "| shared | 1.250 (1.000 to 1.500) | 2.40 | 300 |" in page
    assert "Not measured: failed (torch.OutOfMemoryError: CUDA out of memory)." in page
    assert "NVIDIA H200; torch 2.11.0; commit `abcdef`" in page


def test_a_run_is_published_beside_its_page(tmp_path: Path) -> None:
    run, docs = tmp_path / "run.json", tmp_path / "docs"
    docs.mkdir()
    run.write_text(json.dumps(report()))
    assert main([str(run), "--output-dir", str(docs)]) == 0
    assert json.loads((docs / "gpu.json").read_text()) == report()
    assert (docs / "gpu.md").read_text() == page_of(report())
    (docs / "gpu.md").unlink()
    assert main(["--output-dir", str(docs)]) == 0  # from the JSON that is there
    assert (docs / "gpu.md").read_text() == page_of(report())


def test_a_dry_run_is_never_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run.json"
    run.write_text(json.dumps(report(is_dry=True)))
    assert main([str(run), "--output-dir", str(tmp_path)]) == 2
    assert "is of a dry run" in capsys.readouterr().err
    assert not (tmp_path / "gpu.md").exists()
