"""The tutorial's commands run as printed, with a world, a model and a run a hundredth as large."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.builds import environment
from helpers.pages import bash_commands, python_words

pytestmark = [pytest.mark.heavy, pytest.mark.slow]

# The last value of an option counts.
SMALLER = {
    "sandbox.clips": ["--clips=12", "--num-questions=24"],
    "judges.audit sample": ["--size=12"],
    "sandbox.warm_up": ["--steps=2"],
    "train.sft": ["--max-steps=2", "--held-out-max-new-tokens=8", "--held-out-rows=2"],
    "train.evaluate": ["--max-new-tokens=8", "--limit=8"],
    "train.rl": ["--max-steps=1", "--pages-every=1", "--save-steps=1", "--max-completion-length=8"],
}


@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_runs(repository: Path, tmp_path: Path) -> None:
    commands = bash_commands((repository / "docs" / "tutorial.md").read_text("utf-8"))
    assert len(commands) >= 18
    here = environment(
        None,
        PYTHONPATH=str(repository),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        OMP_NUM_THREADS="1",
    )
    folder = tmp_path / "user"
    folder.mkdir()
    for command in commands:
        words = python_words(command)
        words += [more for mark, extra in SMALLER.items() if mark in command for more in extra]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=here,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (folder / "audits" / "faulty" / "report.html").is_file()
    assert list((folder / "out" / "rl" / "pages").glob("step-*.html"))
    for name in ("sft", "sft-shuffled", "rl"):
        assert pq.read_table(folder / "scores" / name / "predictions.parquet").num_rows == 8
