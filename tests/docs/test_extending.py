"""The files of docs/extending.md do what the page says, from a folder that is not ours.

`tests/extending/` adds such files to whole commands.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from helpers.builds import environment
from helpers.pages import blocks

import train.rewards.plan  # imports the rewards that ship
from judges.backends.registry import GROUP
from train.rewards.registry import ARGUMENTS, REWARDS, Need

pytestmark = pytest.mark.heavy

OURS = train.rewards.plan.__name__.rpartition(".")[0]

# Run in one fresh interpreter, in the folder with the files of the page.
_CHECKS = """
import asyncio
import torch
from types import SimpleNamespace
from cli.plugins import load_plugin
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.traces import TEMPLATES, parse_trace
from schemas.samples import Sufficiency

for name in files:
    load_plugin(name)

from train.rewards.registry import REWARDS
assert REWARDS["brevity"].function(completion="x" * 250, more=1) == 0.75
text = "<observation>a</observation> <think>Wait, b</think><answer>A</answer>"
trace = parse_trace(text, TEMPLATES["p2r"])
hesitates = REWARDS["hesitates"].function
assert asyncio.run(hesitates(trace=trace, verdict=Sufficiency("yes"))) == 1.0
assert asyncio.run(hesitates(trace=None, verdict=Sufficiency("yes"))) is None
assert REWARDS["hesitates"].waits_for_verdict and not REWARDS["brevity"].waits_for_verdict

from train.algorithms.registry import ADVANTAGES, TOKEN_WEIGHTINGS, parse_algo
assert parse_algo("median-grpo+appo").loss_type == "dapo"
assert parse_algo("median-grpo+entropy").weighting == "entropy"
rewards = torch.tensor([0.0, 1.0, 5.0, float("nan")], dtype=torch.float64)
found = ADVANTAGES["median"].load()(None, rewards, torch.ones(4, 2), scale=False)
assert found.tolist() == [[-1, -1], [0, 0], [4, 4], [0, 0]]

weighting = TOKEN_WEIGHTINGS["entropy"](SimpleNamespace(entropy_strength=0.5))
mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
entropies = torch.tensor([[1.0, 2.0], [0.0, 9.0]])
given = SimpleNamespace(logprobs=SimpleNamespace(entropies=entropies, mask=mask))
weights = weighting.weights(given).weights
assert weights.tolist() == [[1.25, 1.5], [1.0, 1.0]]
rollouts = [SimpleNamespace(token_ids=[1, 2]), SimpleNamespace(token_ids=[1])]
scored = SimpleNamespace(
    weights=weights, advantages=weights, group=SimpleNamespace(rollouts=rollouts)
)
assert weighting.metrics(scored, None) == {"entropy/weight": [1.25, 1.5, 1.0]}

from train.modeling.families import family_names, find_family
assert find_family("my_vl").name == "My-VL" and "My-VL" in family_names()

import json
from pathlib import Path
from schemas.annotations.reader import read_questions
row = {"ask": "Which?", "choices": ["red", "blue"], "reply": "blue", "clip": "a.mp4"}
Path("quiz.json").write_text(json.dumps([row]))
(question,) = read_questions(Path("quiz.json"))
assert question.solution == "B" and question.media == (MediaRef(kind="video", path="a.mp4"),)

from train.evaluation.metrics import all_metrics
(metric,) = [each for each in all_metrics() if each.name == "mentions_time"]
prediction = SimpleNamespace(output="At 2 Seconds", question=question)
assert metric.of(SimpleNamespace(prediction=prediction)) == 1.0

from judges.backends.registry import open_backend
from judges.sufficiency import sufficiency_request, verdict_of
async def ask():
    backend = await open_backend("echo:1")
    request, _ = sufficiency_request(question, "It is blue.")
    reply = await backend.complete(request)
    assert backend.worst_case_tokens(request)[1] == 512
    assert await backend.count_tokens(request) is None
    await backend.aclose()
    return verdict_of(reply).verdict
assert asyncio.run(ask()) == "yes"
"""


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """The files of the page, in a folder of their own."""
    text = (repository / "docs" / "extending.md").read_text("utf-8")
    for code in blocks(text, "python"):
        found = re.match(r"# ([\w]+\.py)\n", code)
        assert found, f"every file of the page begins with its name: {code[:60]!r}"
        (tmp_path / found[1]).write_text(code)
    (entry,) = blocks(text, "toml")
    assert f'[project.entry-points."{GROUP}"]' in entry
    assert 'echo = "my_backend:open_backend"' in entry
    return tmp_path


@pytest.mark.timeout(120)
def test_the_files_of_the_page_add_what_the_page_says(folder: Path, repository: Path) -> None:
    files = sorted(path.name for path in folder.glob("*.py"))
    assert len(files) == 7
    done = subprocess.run(
        [sys.executable, "-c", f"files = {files!r}\n{_CHECKS}"],
        cwd=folder,
        env=environment(None, PYTHONPATH=str(repository), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_each_extension_point_has_a_section_and_a_test_from_outside(repository: Path) -> None:
    text = (repository / "docs" / "extending.md").read_text("utf-8")
    rows = re.findall(r"^\| \[.+?\]\(#([\w-]+)\) \| (\d) \| (\d):", text, re.MULTILINE)
    assert len(rows) == 7
    assert [touched for _, touched, _ in rows] == ["0"] * 7  # from outside: no product file
    tests = [path.name for path in (repository / "tests" / "extending").glob("test_*.py")]
    for part in ("reward", "advantage", "token_weighting", "family", "format", "metric", "backend"):
        assert any(part in name for name in tests), f"tests/extending has no test of a {part}"


def test_the_page_lists_every_argument_need_and_shipped_reward(repository: Path) -> None:
    text = (repository / "docs" / "extending.md").read_text("utf-8")
    (section,) = re.findall(r"^## A reward\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r'`"?([\w-]+)"?`', section))
    shipped = {name for name, each in REWARDS.items() if each.function.__module__.startswith(OURS)}
    assert shipped >= {"accuracy", "sufficient", "time-iou"}
    assert {*ARGUMENTS, *shipped} <= named
    assert {need.rpartition(":")[2] for need in get_args(Need)} <= named | {"verdict"}
