"""The page about Python runs, cell by cell, as a notebook would run it: in a running event loop."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.builds import environment
from helpers.pages import blocks

pytestmark = [pytest.mark.heavy, pytest.mark.slow]

_NOTEBOOK = """
import ast, asyncio, inspect, json, sys
cells, names = json.load(open(sys.argv[1])), {"__name__": "__main__"}

async def run():
    for number, cell in enumerate(cells):
        code = compile(cell, f"cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result

asyncio.run(run())
checks = open(sys.argv[2]).read()
exec(compile(checks, "checks", "exec"), names)
"""
# What the page says of its results, put to the test.
_CHECKS = """
assert len(dataset) > 10 and set(funnel["step"]) >= {"accepted", "verify"}
assert len(wrong) >= 1
assert outcome.verdict.verdict == "no"
assert 0 <= score <= 1 and leak is not None
assert group_advantages(rewards, group_size=4)[4:].abs().max() == 0
assert advantages.shape == (4, 4) and advantages[2, 0] == 0 and advantages[2, 3] > 0
assert crucial.any() and weights.min() >= 1 and 1 < weights.max() <= 1.7
assert loss_weights.shape == (4, 4)
assert list(metrics.index) == [1, 2]
assert metrics["rewards/brevity"].between(0, 1).all()
assert len(rollouts) > 0 and run.model.is_dir() and len(verdicts) >= 0
from train.rewards.registry import REWARDS
assert "brevity" not in REWARDS
"""


@pytest.mark.timeout(300)
def test_the_page_runs_cell_by_cell(repository: Path, tmp_path: Path) -> None:
    cells = blocks((repository / "docs" / "python_api.md").read_text("utf-8"), "python")
    assert len(cells) >= 10
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    (tmp_path / "checks.py").write_text(_CHECKS)
    done = subprocess.run(
        [sys.executable, "-c", _NOTEBOOK, "cells.json", "checks.py"],
        cwd=tmp_path,
        env=environment(
            None,
            PYTHONPATH=str(repository),
            XDG_CACHE_HOME=str(tmp_path / "cache"),
            OMP_NUM_THREADS="1",
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
