"""What a build costs: quoted before, limited while it runs, recorded after."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.build_world import make_world
from helpers.builds import build_command, query, run_build
from servers.model_server import RunningServer, running_server

NUM_QUESTIONS = 90
# Dollars per million tokens of the two models that the builds here use.
TEACHER_INPUT, TEACHER_OUTPUT, JUDGE_INPUT, JUDGE_OUTPUT = 2.0, 10.0, 0.10, 0.50

pytestmark = pytest.mark.heavy


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(
        tmp_path / "requests.jsonl",
        brain="helpers.build_world:brain",
        python_path=Path(__file__).parent.parent,
    ) as running:
        yield running


def _served_dollars(server: RunningServer) -> float:
    """What the server would bill, from its own log."""
    total = 0.0
    for record in server.requests("/v1/messages"):
        if usage := record.get("usage"):
            teacher = "sonnet" in record["model"]
            total += usage["input_tokens"] * (TEACHER_INPUT if teacher else JUDGE_INPUT) / 1e6
            total += usage["output_tokens"] * (TEACHER_OUTPUT if teacher else JUDGE_OUTPUT) / 1e6
    return total


@pytest.mark.slow
def test_a_dry_run_pays_nothing_and_is_near_what_the_build_then_takes(
    server: RunningServer, tmp_path: Path
) -> None:
    questions, out = make_world(tmp_path / "world", NUM_QUESTIONS), tmp_path / "out"
    # A pilot of 30 questions shows how long replies are; the quote is for the other 60.
    assert run_build(build_command(questions, out, "--limit=30"), server.url).returncode == 0
    paid = len(server.requests("/v1/messages"))
    done = run_build(build_command(questions, out, "--dry-run"), server.url)
    assert done.returncode == 0, done.stderr
    assert len(server.requests("/v1/messages")) == paid
    quoted = json.loads((out / "estimate.json").read_text())
    assert quoted["questions"] == 60
    pilot = query(out, "select sum(input_tokens), sum(output_tokens), sum(cost_usd) from calls")[0]
    assert run_build(build_command(questions, out), server.url).returncode == 0
    total = query(out, "select sum(input_tokens), sum(output_tokens), sum(cost_usd) from calls")[0]
    for position, name in enumerate(("input_tokens", "output_tokens", "usd")):
        estimated = sum(step[name] for step in quoted["steps"])
        assert estimated == pytest.approx(total[position] - pilot[position], rel=0.15), name
    for step in quoted["steps"]:
        assert step["usd_batch"] == pytest.approx(step["usd"] / 2)


def test_the_ledger_holds_what_the_server_billed(server: RunningServer, tmp_path: Path) -> None:
    questions, out = make_world(tmp_path / "world", 30), tmp_path / "out"
    assert run_build(build_command(questions, out), server.url).returncode == 0
    spent = query(out, "select sum(cost_usd) from spend")[0][0]
    assert spent == pytest.approx(_served_dollars(server), rel=1e-9)


@pytest.mark.slow
def test_the_budget_is_never_passed_and_the_build_can_go_on(
    server: RunningServer, tmp_path: Path
) -> None:
    questions, out = make_world(tmp_path / "world", NUM_QUESTIONS), tmp_path / "out"
    server.control(latency_ms=30)
    limit = 0.08
    done = run_build(build_command(questions, out, f"--max-cost-usd={limit}"), server.url)
    assert done.returncode == 3, done.stderr
    assert "budget" in done.stderr
    assert 0 < _served_dollars(server) <= limit
    settled = query(out, "select count(*) from rejections")[0][0]
    settled += query(out, "select count(*) from accepted")[0][0]
    assert 0 < settled < NUM_QUESTIONS
    assert run_build(build_command(questions, out), server.url).returncode == 0


def test_a_budget_over_an_unknown_price_is_refused_before_anything_is_sent(
    server: RunningServer, tmp_path: Path
) -> None:
    questions = make_world(tmp_path / "world", 5)
    command = build_command(questions, tmp_path / "out", "--max-cost-usd=1")
    command[command.index("--judge") + 1] = "claude:claude-of-next-year"
    done = run_build(command, server.url)
    assert done.returncode == 2
    assert "claude-of-next-year" in done.stderr
    assert "--prices" in done.stderr
    assert server.requests() == []
