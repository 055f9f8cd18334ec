"""A run of the GPU page's parts: dry, with nothing but the image's packages and the wheels."""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.page import main as publish
from benchmarks.gpu.parts import BENCHMARKS, Part, parts_of
from benchmarks.gpu.run import main, measured
from benchmarks.gpu.wheels import CARRIED, IMAGE, with_requirements

HIDING = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {HIDDEN}
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


def as_on_the_image(folder: Path) -> dict[str, str]:
    """An environment in which Python finds no other packages than the image and the wheels have."""
    there = with_requirements((*IMAGE, *CARRIED)) | {"videop2r-toolkit"}
    hidden = sorted(
        module
        for module, packages in packages_distributions().items()
        if not {package.lower().replace("_", "-") for package in packages} & there
    )
    assert {"duckdb", "decord", "av", "fastapi", "openai"} <= set(hidden)
    (folder / "sitecustomize.py").write_text(HIDING.replace("HIDDEN", f"*{hidden!r}"))
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def test_hidden_packages_are_not_found(tmp_path: Path) -> None:
    check = "from importlib.util import find_spec as f; print(f('av'), f('duckdb'), bool(f('trl')))"
    found = subprocess.run(
        [sys.executable, "-c", check],
        env=as_on_the_image(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["None", "None", "True"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dry_run_measures_every_part_and_cannot_be_published(
    tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "hiding").mkdir()
    out = tmp_path / "out"
    ended = subprocess.run(
        ["bash", "benchmarks/gpu/run.sh", "--dry", "--minutes", "25", "--output-dir", str(out)],
        cwd=repository,
        env=as_on_the_image(tmp_path / "hiding") | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads((out / "gpu.json").read_text())
    assert {part["name"]: part["status"] for part in report["parts"]} == dict.fromkeys(
        BENCHMARKS, "measured"
    ), ended.stderr
    assert ended.returncode == 0
    page = (out / "gpu.md").read_text()
    assert "**A dry run" in page
    for part in report["parts"]:
        section = page.partition(f"## {part['title']}\n")[2].partition("\n## ")[0]
        assert part["command"] in section
        assert "|---|" in section
    results = {part["name"]: part["result"] for part in report["parts"]}
    assert results["rollouts"]["same tokens"]
    sizes = results["memory"]["GB"]
    for name in ("weights", "gradients", "optimizer"):
        assert sizes[name]["measured over planned"] == pytest.approx(1, rel=0.01)
    parity = results["precision"]["against float32, plain"]
    assert parity["float32, shared"]["largest |difference| of log-probs"] < 1e-5
    assert 0 < parity["autocast, shared"]["mean |difference| of log-probs"] < 0.1
    assert publish([str(out / "gpu.json"), "--output-dir", str(tmp_path)]) == 2


def part_of(script: Path, source: str, minutes: float = 1) -> Part:
    script.write_text(source)
    return Part("some", "Some part", (str(script),), minutes)


def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    part = part_of(tmp_path / "part.py", "raise SystemExit('no memory is left')")
    outcome = measured(part, tmp_path, 60, dry=True)
    assert (outcome["status"], outcome["detail"]) == ("failed", "no memory is left")
    assert "result" not in outcome


def test_a_part_out_of_time_is_stopped_with_its_workers(tmp_path: Path) -> None:
    worker = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    outcome = measured(part_of(tmp_path / "part.py", source), tmp_path, 1.5, dry=True)
    assert (outcome["status"], outcome["detail"]) == ("out of time", "stopped after 2 s")
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_a_part_after_the_time_is_not_begun(tmp_path: Path) -> None:
    part = part_of(tmp_path / "part.py", f"open({str(tmp_path / 'begun')!r}, 'w')")
    outcome = measured(part, tmp_path, 0, dry=True)
    assert (outcome["status"], outcome["detail"]) == ("out of time", "not begun")
    assert not (tmp_path / "begun").exists()


def test_a_part_that_was_measured_has_its_command_and_its_result(tmp_path: Path) -> None:
    part = part_of(tmp_path / "part.py", "print('{\"figure\": 2}')")
    outcome = measured(part, tmp_path, 60, dry=True)
    assert (outcome["status"], outcome["result"]) == ("measured", {"figure": 2})
    assert outcome["command"] == f"python {tmp_path / 'part.py'}"


def test_on_a_gpu_each_benchmark_is_measured_at_3b_and_the_minutes_suffice() -> None:
    parts = parts_of(dry=False)
    names = [part.name for part in parts]
    assert names[:4] == ["learner_pass_3b", "rl_step_3b", "rollouts_3b", "memory_3b"]
    assert {f"{name}_3b" for name in BENCHMARKS} <= set(names)
    assert {"learner_pass_7b", "memory_7b", "precision_7b", "rollouts_7b"} <= set(names)
    assert all("cuda" in part.command for part in parts)
    assert sum(part.minutes for part in parts if part.name.endswith("3b")) <= 20


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry", "--parts", "cooking"]) == 2
    assert "there is no part cooking: --parts takes learner_pass," in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([]) == 2
        assert "torch sees no CUDA GPU" in capsys.readouterr().err
