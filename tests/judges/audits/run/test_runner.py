"""`judges.audit run`: judges over real protocols, money, failures, resuming, and the oracle."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.chat_requests import paid_requests
from helpers.judged_ledger import choice_question, free_question, judged_ledger
from servers.model_server import TEST_KEY, RunningServer

from cli.config import UsageError
from judges.audit import main
from judges.audits.run.options import RunConfig
from judges.audits.run.prompt_variants import prompt_id_of
from judges.audits.run.runner import ask_judges
from judges.audits.sample.command import SampleConfig, sample
from judges.audits.store import AuditStore, AuditVerdict
from judges.backends.base import ChatRequest, TextPart
from judges.backends.registry import BackendOptions, open_backend
from sandbox.clips import main as render
from schemas.annotations.reader import read_questions
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.runs import start_run
from schemas.traces import TEMPLATES, parse_trace

pytestmark = pytest.mark.heavy

CLAUDE = "claude:claude-haiku-5-5"
YES = {"contains": "Observation", "reply": "It does. <judgement>Yes</judgement>"}
NO = {"contains": "Observation", "reply": "It does not. <judgement>No</judgement>"}


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """Twelve rows of twelve videos, half of them with options."""
    rows = [
        (choice_question(n, n) if n % 2 else free_question(n, n), 0, ["yes"]) for n in range(12)
    ]
    ledger = judged_ledger(tmp_path / "cot.duckdb", rows)
    assert main(["sample", str(tmp_path / "audit"), "--ledger", str(ledger)]) == 0
    return tmp_path / "audit"


@pytest.fixture
def claude(model_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    monkeypatch.setenv("SERVER_KEY", TEST_KEY)
    return model_server


def _verdicts(audit: Path) -> list[AuditVerdict]:
    with AuditStore.open(audit, start_run("test", {})) as store:
        return store.verdicts()


def _run(audit: Path, *options: str) -> int:
    return main(["run", str(audit), "--judge", CLAUDE, *options])


def test_judges_of_two_protocols_answer_the_same_rows(audit: Path, claude: RunningServer) -> None:
    claude.control(replies=[{**NO, "contains": "table"}, YES])
    openai = f"openai:gpt-4o-mini@{claude.openai_url}"
    assert _run(audit, openai, "--api-key-env", "SERVER_KEY") == 0
    found = _verdicts(audit)
    assert Counter((v.judge, v.verdict) for v in found) == {
        (judge, word): 6 for judge in (CLAUDE, openai) for word in ("yes", "no")
    }
    assert {v.prompt_id for v in found} == {prompt_id_of("sufficiency")}
    assert {v.unscored_reason for v in found} == {""}
    with_price = [v for v in found if v.judge == CLAUDE]
    assert all(v.cost_usd is not None and v.cost_usd > 0 for v in with_price)
    assert all(v.seconds is not None and v.seconds > 0 for v in found)


def test_the_same_command_again_asks_nothing_and_changes_nothing(
    audit: Path, claude: RunningServer
) -> None:
    claude.control(replies=[YES])
    options = ("--repeats", "2", "--permutations", "2", "--probes")
    assert _run(audit, *options) == 0
    first, asked = _verdicts(audit), len(paid_requests(claude))
    assert asked == 12 * 2 + 6 * 2 + 12 * 5
    assert _run(audit, *options) == 0
    assert len(paid_requests(claude)) == asked
    assert _verdicts(audit) == first


def test_repeats_are_new_calls_and_may_differ(audit: Path, claude: RunningServer) -> None:
    claude.control(replies=[{**YES, "replies": [YES["reply"], NO["reply"]]}])
    assert _run(audit, "--repeats", "2") == 0
    by_repeat = Counter((v.repeat, v.verdict) for v in _verdicts(audit))
    assert by_repeat.total() == 24
    assert sum(n for (_, word), n in by_repeat.items() if word == "yes") == 12


def test_an_unscored_reply_is_asked_again_and_then_stays_unscored(
    audit: Path, claude: RunningServer
) -> None:
    """Bug seen: an unscored verdict stored as a No."""
    claude.control(replies=[{**YES, "reply": "Hard to say."}])
    assert _run(audit, "--retries", "1") == 0
    assert {(v.verdict, v.unscored_reason) for v in _verdicts(audit)} == {
        ("unscored", "no_judgement")
    }
    assert all(len(v.call_keys) == 2 for v in _verdicts(audit))
    assert len(paid_requests(claude)) == 24


def test_calls_that_fail_for_good_end_in_status_1_and_can_be_tried_again(
    audit: Path, claude: RunningServer
) -> None:
    claude.control(replies=[YES], script=[{"match": "street 4", "faults": ["bad_request"]}])
    assert _run(audit) == 1
    failed = [v for v in _verdicts(audit) if v.verdict != "yes"]
    assert [(v.verdict, v.unscored_reason) for v in failed] == [("unscored", "no_reply")]
    assert "refused by script" in failed[0].reply
    assert _run(audit) == 1  # final until somebody says otherwise
    assert _run(audit, "--retry-failed") == 0
    assert {v.verdict for v in _verdicts(audit)} == {"yes"}
    assert len(paid_requests(claude)) == 13


def test_a_budget_is_never_passed_and_a_higher_one_goes_on(
    audit: Path, claude: RunningServer
) -> None:
    """Bug seen: earlier runs of the audit not counted, so each run spent the limit anew."""
    claude.control(replies=[YES])
    asked = 0
    dear = ["run", str(audit), "--judge", "claude:claude-opus-5-5", "--concurrency", "2"]
    for _ in range(2):  # the second run finds no room for a call
        assert main([*dear, "--max-cost-usd", "0.02"]) == 3
        asked = asked or len(paid_requests(claude))
        assert len(paid_requests(claude)) == asked
    with AuditStore.open(audit, start_run("test", {})) as store:
        spent, done = store.ledger.spent_usd(), len(store.verdicts())
    assert 0 < spent <= 0.02
    assert 0 < done < 12
    assert main([*dear, "--max-cost-usd", "1"]) == 0
    assert len(_verdicts(audit)) == 12
    assert len(paid_requests(claude)) == 12


def test_a_budget_for_a_model_without_price_is_refused_before_anything_is_paid(
    audit: Path, claude: RunningServer
) -> None:
    nameless = f"openai:gpt-4o-mini@{claude.openai_url}"
    with pytest.raises(UsageError, match="price of model"):
        _run(audit, nameless, "--max-cost-usd", "1", "--api-key-env", "SERVER_KEY")
    assert paid_requests(claude) == []


def test_only_the_first_rows_are_asked_where_that_is_wanted(
    audit: Path, claude: RunningServer
) -> None:
    claude.control(replies=[YES])
    assert _run(audit, "--limit", "3", "--probes") == 0
    with AuditStore.open(audit, start_run("test", {})) as store:
        first = {item.item_id for item in store.items()[:3]}
        assert {v.item_id for v in store.verdicts()} == first
    assert _run(audit, "--probes") == 0  # probes of the first three are the same as before
    assert len(paid_requests(claude)) == 12 * 6


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--judge", "claude:x", "--variants", "flattery"], "no prompt 'flattery'"),
        (["--judge", "oracle:1", "oracle:1"], "is given twice"),
        (["--judge", "nobody"], "names no backend"),
        (["--judge", "oracle:1"], "no world.json under the media root"),
        (["--judge", CLAUDE, "--temperature", "0.5"], "--judge-temperature 0.5 was given, but"),
        (["--judge", CLAUDE, "--judge-temperature", "0.5"], "takes no temperature"),
        ([], "--judge"),
    ],
)
def test_wrong_usage_is_one_sentence_and_asks_nobody(
    audit: Path,
    claude: RunningServer,
    options: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises((UsageError, SystemExit)) as ended:
        main(["run", str(audit), *options])
    assert complaint in f"{ended.value} {capsys.readouterr().err}"
    assert claude.requests() == []


def test_an_unknown_subcommand_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'smaple' is no subcommand; expected one of sample"):
        main(["smaple"])


@pytest.mark.heavy
def test_an_interrupted_run_keeps_what_it_has_and_goes_on(
    audit: Path, claude: RunningServer
) -> None:
    claude.control(replies=[YES], latency_ms=150)
    command = [sys.executable, "-m", "judges.audit", "run", str(audit), "--judge", CLAUDE]
    command += ["--repeats", "4", "--concurrency", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(paid_requests(claude)) < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the same command again resumes" in said
    kept = len(_verdicts(audit))
    assert 6 <= kept < 48
    claude.control(latency_ms=0)
    assert main(command[3:]) == 0
    assert len(_verdicts(audit)) == 48
    assert len(paid_requests(claude)) == 48


async def _observed(world: Path) -> dict[VideoQuestion, str]:
    """The sandbox's questions with what its teacher says was seen: enough, or too little."""
    spec = "oracle:1,insufficient=0.4"
    teacher = await open_backend(spec, BackendOptions(media_root=world))
    observed = {}
    for question in read_questions(world / "questions.json"):
        assert isinstance(question, VideoQuestion)
        prompt = TextPart(task_prompt(question).text)
        reply = await teacher.complete(
            ChatRequest((prompt,), 2000, question_id=question.question_id)
        )
        observed[question] = parse_trace(reply.text, TEMPLATES["p2r"]).get("observation")
    return observed


async def test_a_judge_that_knows_says_the_same_however_it_is_asked_and_sees_through_probes(
    tmp_path: Path,
) -> None:
    """Bug seen: a permuted question under its own id, which the oracle does not know.

    The committed answer is an option's text, so a gold letter that did not move with its option
    would turn a Yes into a No.
    """
    world = tmp_path / "world"
    assert render(["--out", str(world), "--clips", "10", "--stills", "4", "--questions", "26"]) == 0
    observed = await _observed(world)
    ledger = judged_ledger(
        tmp_path / "rl.duckdb",
        [(question, 0, ["yes"]) for question in observed],
        {question.question_id: text for question, text in observed.items()},
    )
    audit = tmp_path / "audit"
    sampled = SampleConfig(audit=audit, ledger=(ledger,), media_root=world, max_per_video=9)
    assert sample(sampled) == 0
    config = RunConfig(
        audit=audit,
        judge=("oracle:7",),
        variants=("sufficiency", "sufficiency-short", "commit-first"),
        repeats=2,
        permutations=3,
        probes=True,
    )
    assert await ask_judges(config) == 0
    found = _verdicts(audit)
    said: dict[str, set[str]] = {}
    for verdict in found:
        if verdict.probe:
            assert verdict.verdict == "no", verdict
        else:
            said.setdefault(verdict.item_id, set()).add(verdict.verdict)
    assert all(len(words) == 1 for words in said.values())
    assert len(said) == len(observed)
    assert 0.3 < sum(words == {"yes"} for words in said.values()) / len(said) < 0.9
    assert {v.permutation for v in found} == {0, 1, 2, 3}
    assert len({v.probe for v in found}) == 6
