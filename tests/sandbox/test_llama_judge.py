"""A tiny Llama that really judges: trained here, it filters a build and is audited like any other.

Three routes to a judge in one report: the Messages protocol, `transformers serve`, this process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.served_model import served_model
from servers.model_server import TEST_KEY, running_server

from cli.config import EXIT_OK, UsageError
from judges.audit import main as audit
from judges.audits.store import AuditStore
from judges.sufficiency import sufficiency_request
from pipeline.build_cot import main as build
from sandbox.clips import main as render
from sandbox.llama_judge import main as train
from sandbox.truth_labels import main as label_from_truth
from schemas.runs import start_run

CLAUDE = "claude:claude-haiku-5-5"
STEPS, HELD_OUT = 600, 400
ERRS_ON_EVERY = 10  # rows on which the judge behind the Messages protocol says the opposite

pytestmark = [pytest.mark.heavy]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the command's usual steps: about a minute and a half of one core."""
    folder = tmp_path_factory.mktemp("judge") / "llama"
    command = [sys.executable, "-m", "sandbox.llama_judge", "--out", str(folder)]
    command += ["--steps", str(STEPS), "--held-out", str(HELD_OUT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def filtered(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of a small world whose judge is the Llama."""
    folder = tmp_path_factory.mktemp("filtered")
    world = folder / "world"
    size = ["--preset", "tiny", "--clips", "60", "--stills", "20", "--num-questions", "160"]
    assert render(["--out", str(world), *size, "--seed", "11"]) == EXIT_OK
    options = ["--questions", str(world / "questions.json"), "--media-root", str(world)]
    options += ["--generator", "oracle:3,insufficient=0.4", "--judge", f"local:{judge}"]
    options += ["--frame-cache", str(folder / "frames"), "--out", str(folder / "cot")]
    assert build(options) == EXIT_OK
    return folder


def _numbers(folder: Path) -> dict[str, float]:
    """The table of the judge's card: what it reached, and what can be had without reading."""
    found = {}
    for line in (folder / "README.md").read_text(encoding="utf-8").splitlines():
        for name in ("this judge", "always yes", "chance, at its rate of yes"):
            if line.strip().startswith(name):
                found[name] = float(line.strip().removeprefix(name).split()[0])
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_agrees_with_the_oracle_far_above_chance(judge: Path) -> None:
    numbers = _numbers(judge)
    assert numbers["this judge"] >= 0.80
    assert numbers["always yes"] == 0.5
    assert numbers["chance, at its rate of yes"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_build_that_it_filtered_is_audited_by_three_routes(
    judge: Path, filtered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, truth = tmp_path / "audit", tmp_path / "truth.jsonl"
    sample = ["--build", str(filtered / "cot"), "--size", "100", "--max-per-video", "20"]
    assert audit(["sample", str(folder), *sample]) == EXIT_OK
    assert label_from_truth([str(folder), "--out", str(truth)]) == EXIT_OK
    assert audit(["label", str(folder), "--import", str(truth)]) == EXIT_OK
    local = f"local:{judge}"
    with served_model(judge, tmp_path) as url, running_server() as claude:
        served = f"openai:{judge}@{url}"
        monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
        claude.control(replies=_replies(folder, truth))
        judges = ["--judge", CLAUDE, served, local, "--max-tokens", "32"]
        assert audit(["run", str(folder), *judges]) == EXIT_OK
    assert audit(["report", str(folder), "--frames", "none", "--resamples", "400"]) == EXIT_OK

    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in report["judges"]}
    # Asked again in this process it says the same, and stands once.
    again = f"{local} (as in the data)"
    assert set(found) == {again, CLAUDE, served}
    num_rows = report["rows"]["num_rows"]
    assert num_rows >= 80
    for name in (served, again):
        assert found[name]["num_asked"] == num_rows
        assert found[name]["unscored"]["value"] == 0
        assert found[name]["against_people"]["agreement"]["value"] >= 0.80
    assert _said(folder, served) == _said(folder, local), "the same weights by two routes"
    right = found[CLAUDE]["against_people"]["rows"]
    wrong_rows = right["yes_no"] + right["no_yes"]
    assert wrong_rows == -(-num_rows // ERRS_ON_EVERY)


def _said(folder: Path, judge: str) -> dict[str, str]:
    with AuditStore.open(folder, start_run("test", {})) as store:
        return {one.item_id: one.verdict for one in store.verdicts() if one.judge == judge}


def _replies(folder: Path, truth: Path) -> list[dict[str, Any]]:
    """What the model server says to each row's prompt: the truth, but for every tenth row."""
    labels = {row["item_id"]: row["label"] for row in map(json.loads, truth.open())}
    replies = []
    with AuditStore.open(folder, start_run("test", {})) as store:
        for number, item in enumerate(store.items()):
            request, _ = sufficiency_request(item.question, item.observation)
            is_yes = (labels[item.item_id] == "sufficient") != (number % ERRS_ON_EVERY == 0)
            word = "Yes" if is_yes else "No"
            prompt = request.text[request.text.index("<question>") :]
            replies.append({"contains": prompt, "reply": f"<judgement>{word}</judgement>"})
    return replies


def test_it_overwrites_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        train(["--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "mine"
