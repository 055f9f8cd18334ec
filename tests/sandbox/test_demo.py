"""The demo as a user runs it: a dataset that loads, an audit of its judge, a model that learns."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.browser import open_browser, require_chromium
from helpers.html_tags import walk_pages

pytestmark = pytest.mark.heavy

SMALL = ("--clips", "6", "--stills", "3", "--num-questions", "40", "--audit-size", "20")
DATA_ONLY = "--no-learning"


def demo(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox.demo", "--out", str(out), *SMALL, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_the_demo_ends_with_a_dataset_and_runs_again(tmp_path: Path) -> None:
    first = demo(tmp_path, DATA_ONLY)
    assert first.returncode == 0, first.stdout + first.stderr
    for stage in range(1, 6):
        assert f"[{stage}/5] done in" in first.stdout
    for named in (
        "it agrees with the truth on",
        "answer_leak",
        "low_score",
        "accepted",
        "num_rows",
        "README.md",
    ):
        assert named in first.stdout
    rows = pq.read_table(tmp_path / "cot" / "dataset").to_pylist()
    asked = json.loads((tmp_path / "world" / "questions.json").read_text())
    assert 0 < len(rows) < len(asked) == 40
    gold = {row["problem_id"]: row["solution"] for row in asked}
    assert all(row["solution"] == gold[int(row["problem_id"])] for row in rows)
    assert all(row["data_source"].startswith("sandbox/") for row in rows)

    report = json.loads((tmp_path / "audit" / "report.json").read_text())
    assert report["rows"]["num_labelled"] == report["rows"]["num_rows"] > 10
    assert [one["name"] for one in report["rows"]["annotators"]] == ["sandbox truth"]
    assert {probe["probe"] for probe in report["probes"]} >= {"empty", "claims-answer"}
    assert "<html" in (tmp_path / "audit" / "report.html").read_text()

    pages, broken = walk_pages(tmp_path / "index.html")
    assert not broken
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in pages}
    assert folders == {".", "audit", "cot", "cot/browse", "world"}
    assert {"report.html", "index.html"} <= {path.name for path in pages}

    second = demo(tmp_path, DATA_ONLY)
    assert second.returncode == 0, second.stdout + second.stderr
    assert pq.read_table(tmp_path / "cot" / "dataset").to_pylist() == rows


@pytest.mark.slow
def test_the_demos_index_leads_to_its_pages_in_a_browser(tmp_path: Path) -> None:
    require_chromium()
    out = tmp_path / "out"
    done = demo(out, DATA_ONLY)
    assert done.returncode == 0, done.stdout + done.stderr
    with open_browser(tmp_path / "profile") as browser:
        browser.narrow(400)
        for links, shown in (
            (("cot/", "browse/"), "document.querySelectorAll('#found tbody tr').length === 40"),
            (("audit/", "report.html"), "document.querySelector('#disagreements')"),
            (("world/",), "document.querySelector('#contents')"),
        ):
            browser.open((out / "index.html").as_uri())
            for link in links:
                place = f"[...document.links].find(one => one.textContent === '{link}')"
                browser.run(f"({place}.click(), true)")
                browser.wait_for("document.readyState === 'complete'")
            browser.wait_for(shown)
            assert browser.run("document.documentElement.scrollWidth") <= 400, links
        assert browser.complaints() == []


def test_a_failing_stage_ends_the_demo_with_its_status(tmp_path: Path) -> None:
    failed = demo(tmp_path, "--judge", "oracle:7,rude=1", DATA_ONLY)
    assert failed.returncode == 2
    assert "rates are wrong, insufficient" in failed.stderr
    assert "[3/5]" not in failed.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_goes_on_to_a_loss_that_falls_and_to_rl_from_the_shipped_start(
    tmp_path: Path,
) -> None:
    """Two steps of RL repair nothing, but every stage has to hand over."""
    sizes = ("--train-questions", "400", "--rl-steps", "2", "--evaluation-questions", "50")
    done = demo(tmp_path, *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[8/8] done in" in done.stdout
    for named in ("| start, with planted faults |", "| after RL, seed 0 |", "| seed 0 |"):
        assert named in done.stdout
    losses = [float(loss) for loss in re.findall(r"step \d+: (\d+\.\d\d)", done.stdout)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    out = tmp_path / "learning" / "rl" / "seed_0"
    assert "<html" in next((out / "pages").glob("*.html")).read_text()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert (out / "model" / "config.json").is_file()
