"""The report of RL and the index of its pages, from metrics as a run writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from media.sampling import FrameSpec
from schemas.runs import start_run
from train.modeling.families import QWEN2_5_VL
from train.monitoring.model_card import GRPO, ModelCard
from train.monitoring.rl_report import read_steps, write_rl_report
from train.monitoring.rollout_index import NEXT_PAGE, page_before, write_rollout_index

CARD = ModelCard(
    command="train.rl",
    method="reinforcement learning (pa-grpo)",
    base_model="base|model <b>",
    family=QWEN2_5_VL,
    facts={"questions": "questions-1", "judge": "claude:claude-haiku-5-5"},
    template="p2r",
    prompt_id="prompt-1",
    frames=FrameSpec("uniform:16"),
    options={},
    run=start_run("train.rl", {}).as_json(),
    papers=(GRPO,),
    max_new_tokens=64,
)


def write_metrics(out: Path, steps: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"step": place, **step}) for place, step in enumerate(steps, 1)]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def steps_of_a_run(number: int = 30) -> list[dict[str, Any]]:
    return [
        {
            "rewards/reasoning/accuracy": step / 100,
            "kl": None if step == 3 else 0.5,
            "judge/calls": 4.0,
            "judge/cost_usd": 0.25,
            "judge/seconds_waited": 0.0,
            "step_time": 120.0,
        }
        for step in range(1, number + 1)
    ]


def test_totals_changes_and_curves_are_of_all_steps(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps_of_a_run())
    totals = write_rl_report(tmp_path, CARD)
    assert totals == (30, 120, 7.5, 3600.0)
    text = (tmp_path / "report.md").read_text()
    assert "| steps | 30 in 1.00 h |" in text
    assert "120 calls, \\$7.50 where the price is known" in text
    assert "base\\|model &lt;b\\>" in text
    assert "| | first 3 steps | last 3 steps |" in text
    assert "| accuracy: answers | 0.02 | 0.29 |" in text
    assert "| KL to the reference, nats | 0.5 | 0.5 |" in text
    assert "judge, seconds" not in text, "nothing was waited for"
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["curves"]["kl"]) == 29, "a number that is not finite is no point"
    assert report["curves"]["rewards/reasoning/accuracy"][-1] == [30, 0.3]
    assert report["totals"]["judge_cost_usd"] == 7.5
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_is_there_is_linked(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps_of_a_run(1))
    (tmp_path / "model").mkdir()
    write_rl_report(tmp_path, CARD)
    text = (tmp_path / "report.md").read_text()
    assert "[model/](model/)" in text
    assert "adapter" not in text
    assert "What changed" not in text, "one step has nothing to compare"


def test_a_run_without_a_logged_step_has_a_report(tmp_path: Path) -> None:
    assert write_rl_report(tmp_path, CARD).steps == 0
    assert not (tmp_path / "curves.png").exists()
    assert "curves.png" not in (tmp_path / "report.md").read_text()
    assert read_steps(tmp_path) == []


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A run of three steps, with pages of the first two."""
    write_metrics(tmp_path, steps_of_a_run(3))
    folder = tmp_path / "pages"
    folder.mkdir()
    for step in (1, 2):
        (folder / f"step-{step:06d}.html").write_text(f"<p>{NEXT_PAGE} {NEXT_PAGE}</p>")
    (folder / "step-x.html").write_text("")
    return tmp_path


def test_the_index_lists_the_steps_that_have_pages(pages: Path) -> None:
    write_rollout_index(pages)
    html = (pages / "pages" / "index.html").read_text()
    assert html.count("<tr>") == 3
    assert '<a href="step-000002.html">step 2</a>' in html
    assert "2.0%" in html
    assert "perception reward" not in html, "no step has one"


def test_pages_are_linked_with_their_neighbours(pages: Path) -> None:
    write_rollout_index(pages)
    first, second = ((pages / "pages" / f"step-00000{n}.html").read_text() for n in (1, 2))
    assert first == f'<p><a href="step-000002.html">step 2 →</a> {NEXT_PAGE}</p>'
    assert NEXT_PAGE in second
    assert page_before(pages / "pages", 2) == "step-000001.html"
    assert page_before(pages / "pages", 1) is None
