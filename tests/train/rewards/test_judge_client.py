"""The judge of a training run: four backends, one ledger, nothing paid twice."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.rollout_scenes import P2R, written
from pydantic import ValidationError
from servers.model_server import TEST_KEY, RunningServer

from cli.config import UsageError
from judges.audits.sample.command import SampleConfig, sample
from judges.audits.store import AuditStore
from judges.backends.budget import BudgetExhausted
from sandbox.models.tiny_models import save_tiny_model
from schemas.ledger.ledger import Ledger
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.samples import UnscoredReason
from schemas.traces import segment_spans
from train.rewards.judge_client import JudgeClient, draw_of
from train.rewards.options import JudgeCallOptions

pytestmark = pytest.mark.heavy

World = tuple[Path, list[VideoQuestion]]

ORACLE = "oracle:5"
QUICK = JudgeCallOptions.model_validate({})
SAYS_YES = [{"contains": "### Observations", "reply": "It fits. <judgement>Yes</judgement>"}]


def judge_of(
    folder: Path, world: World, spec: str = ORACLE, options: JudgeCallOptions = QUICK, **more: Any
) -> JudgeClient:
    return JudgeClient(
        spec,
        ledger_path=folder / "judge-0.duckdb",
        media_root=world[0],
        options=options,
        **{"retry_seconds": (0.002, 0.01), **more},
    )


def observations(world: World, place: int, count: int = 4) -> list[str]:
    """Different observations of a question, sufficient and insufficient ones."""
    teacher = "oracle:3,insufficient=0.5"
    found: dict[str, None] = {}
    for text in written(world[0], world[1][place], 12, teacher=teacher):
        (span,) = [s for s in segment_spans(text, P2R) if s.tag == "observation"]
        found[text[span.inner_start : span.inner_end]] = None
    return list(found)[:count]


def test_verdicts_come_from_the_ledger_after_a_restart_and_an_audit_draws_from_it(
    tmp_path: Path, judged_world: World
) -> None:
    question = judged_world[1][0]
    texts = observations(judged_world, 0)
    with judge_of(tmp_path, judged_world, policy="out/step-20") as judge:
        judge.check()
        first = [judge.submit(question, text, output=f"<o>{text}") for text in texts]
        again = [judge.submit(question, text).result() for text in texts]
        outcomes = [future.result() for future in first]
        assert judge.stats().calls == len(texts)
        assert judge.stats().cache_hits == len(texts)
    assert [one.verdict for one in again] == [one.verdict for one in outcomes]
    verdicts = {one.verdict.verdict for one in outcomes}
    assert verdicts == {"yes", "no"}
    with judge_of(tmp_path, judged_world) as judge:
        resumed = [judge.submit(question, text).result() for text in texts]
        assert (judge.stats().calls, judge.stats().cache_hits) == (0, len(texts))
    assert resumed == outcomes
    path = tmp_path / "judge-0.duckdb"
    with Ledger.open(path, start_run("test", {})) as ledger:
        rows = ledger.query("SELECT draw, observation, generator FROM attempts")
        assert ledger.verify() == []
    assert {row[:2] for row in rows} == {(draw_of(text), text) for text in texts}

    (tmp_path / "config.json").write_text(json.dumps({"media_root": str(judged_world[0])}))
    assert sample(SampleConfig(audit=tmp_path / "audit", run=tmp_path)) == 0
    with AuditStore.open(tmp_path / "audit", start_run("test", {})) as store:
        items = store.items()
        assert store.media_root == judged_world[0].resolve()
    assert {item.observation: item.source_verdict for item in items} == {
        text: outcome.verdict.verdict for text, outcome in zip(texts, outcomes, strict=True)
    }
    assert {item.source_judge for item in items} == {ORACLE}


def test_an_audit_of_a_run_without_a_judge_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no judge-\*\.duckdb; give the --output-dir"):
        sample(SampleConfig(audit=tmp_path / "audit", run=tmp_path))
    with pytest.raises(UsageError, match="--build and --run were given"):
        sample(SampleConfig(audit=tmp_path / "audit", run=tmp_path, build=tmp_path))


def test_a_claude_and_an_openai_server_judge_alike(
    tmp_path: Path,
    judged_world: World,
    model_server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    model_server.control(replies=SAYS_YES, rates={"overloaded": 0.3})
    text = observations(judged_world, 1)[0]
    specs = ("claude:claude-sonnet-5-5", f"openai:judge@{model_server.openai_url}")
    for number, spec in enumerate(specs):
        (folder := tmp_path / str(number)).mkdir()
        with judge_of(folder, judged_world, spec) as judge:
            judge.check()
            outcome = judge.submit(judged_world[1][1], text).result()
            assert outcome.verdict.verdict == "yes"
            assert judge.submit(judged_world[1][1], text).result() == outcome
            assert judge.stats().cache_hits == 1
    paid = [r for r in model_server.requests() if "completions" in r["path"] and r.get("usage")]
    assert len(paid) == 2  # one check, one verdict: the claude server counts tokens for free


def test_a_llama_in_this_process_judges(tmp_path: Path, judged_world: World) -> None:
    """A random one says nothing readable: unscored with its reason, and no error."""
    folder = save_tiny_model("llama", tmp_path / "llama")
    options = JudgeCallOptions(judge_max_tokens=8, retries=0, device="cpu")
    texts = observations(judged_world, 2)
    with judge_of(tmp_path, judged_world, f"local:{folder}", options) as judge:
        judge.check()
        futures = [judge.submit(judged_world[1][2], text) for text in texts]
        reasons = {future.result().verdict.unscored_reason for future in futures}
    assert reasons <= {
        UnscoredReason.NO_JUDGEMENT,
        UnscoredReason.TRUNCATED,
        UnscoredReason.EMPTY_REPLY,
        UnscoredReason.OFF_MENU,
    }


def test_all_calls_of_a_step_are_in_flight_at_once(
    tmp_path: Path, judged_world: World, model_server: RunningServer
) -> None:
    model_server.control(replies=SAYS_YES, latency_ms=500)
    spec = f"openai:judge@{model_server.openai_url}"
    with judge_of(tmp_path, judged_world, spec) as judge:
        began = time.monotonic()
        futures = [judge.submit(judged_world[1][0], f"At t={n} it moves.") for n in range(32)]
        submitted = time.monotonic() - began
        assert {future.result().verdict.verdict for future in futures} == {"yes"}
    assert submitted < 0.3  # `submit` waits for nobody
    assert model_server.control()["most_in_flight"] == 32


def test_a_judge_that_does_not_answer_is_found_before_anything_else(
    tmp_path: Path,
    judged_world: World,
    model_server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = time.monotonic()
    with (
        judge_of(tmp_path, judged_world, "openai:judge@http://127.0.0.1:9/v1") as judge,
        pytest.raises(UsageError, match=r"--judge openai:judge@http.* does not answer: .*reached"),
    ):
        judge.check()
    # An earlier run's check does not answer for a server that has died since.
    spec = f"openai:judge@{model_server.openai_url}"
    (alive := tmp_path / "alive").mkdir()
    with judge_of(alive, judged_world, spec) as judge:
        judge.check()
    model_server.control(rates={"unavailable": 1.0})
    with (
        judge_of(alive, judged_world, spec) as judge,
        pytest.raises(UsageError, match=r"does not answer: .*Service unavailable"),
    ):
        judge.check()
    model_server.control(rates={}, script=[{"faults": ["unauthorized"]}])
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    with (
        judge_of(tmp_path, judged_world, "claude:claude-sonnet-5-5") as judge,
        pytest.raises(UsageError, match=r"does not answer: .*ANTHROPIC_API_KEY"),
    ):
        judge.check()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("nobody", {}, "names no backend"),
        ("oracle:5,blink=2", {}, "write oracle:SEED"),
        ("oracle:5", {"judge_temperature": 0.5}, "takes no temperature"),
        ("openai:judge@http://127.0.0.1:9/v1", {"max_cost_usd": 1.0}, "price of model 'judge'"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_it_is_opened(
    tmp_path: Path, judged_world: World, spec: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        judge_of(tmp_path, judged_world, spec, JudgeCallOptions(**options))
    with judge_of(tmp_path, judged_world) as judge:  # nothing was left open
        judge.check()


def test_prompts_of_two_calls_are_no_training_prompts() -> None:
    with pytest.raises(ValidationError, match="expected one of sufficiency, sufficiency-short"):
        JudgeCallOptions(judge_prompt="commit-first")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        JudgeCallOptions(concurrency=0)


def test_a_budget_that_is_used_up_is_raised_and_counts_earlier_runs(
    tmp_path: Path, judged_world: World, model_server: RunningServer
) -> None:
    """A call may cost 0.032 dollars and costs about 0.01: 0.037 are enough for one, not for two."""
    model_server.control(replies=SAYS_YES)
    prices = tmp_path / "prices.toml"
    prices.write_text("[openai.judge]\ninput = 0.0\noutput = 1000.0\n")
    question, spec = judged_world[1][0], f"openai:judge@{model_server.openai_url}"
    options = JudgeCallOptions(judge_max_tokens=32, max_cost_usd=0.037, prices=prices)
    with judge_of(tmp_path, judged_world, spec, options) as judge:
        judge.submit(question, "At t=0 a red square appears.").result()
        assert 0.005 < judge.stats().cost_usd < 0.032
    with judge_of(tmp_path, judged_world, spec, options) as judge:
        judge.submit(question, "At t=0 a red square appears.").result()  # from the ledger
        with pytest.raises(BudgetExhausted, match=r"budget of \$0\.0370 is used up"):
            judge.submit(question, "At t=1 a blue circle appears.").result()
