"""What the ledger says of what it stores: outcomes, views, samples, integrity."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.ledger_rows import (
    a_question,
    a_run,
    accept,
    attempt_row,
    call_row,
    check_row,
    verdict_row,
)

from schemas.ledger.ledger import FunnelRow, Ledger
from schemas.ledger.rows import ReaderAnswerRow, ReaderCheckRow, SufficiencyRow
from schemas.questions import ProblemType
from schemas.samples import Reason, Rejection, Step, Sufficiency, UnscoredReason

pytestmark = pytest.mark.heavy

LOW = Rejection(Step.VERIFY, Reason.LOW_SCORE, "0.1 is below 0.6")
FAILED = Rejection(Step.GENERATE, Reason.CALL_FAILED, "gave up after 9 attempts")


def accepted(ledger: Ledger) -> list[tuple[str, int]]:
    return ledger.query("SELECT question_id, draw FROM accepted ORDER BY question_id")


def test_an_accepted_question_comes_back_with_all_that_was_stored(ledger: Ledger) -> None:
    question = a_question(3)
    accept(ledger, question)
    (sample,) = ledger.samples()
    assert sample.question == question
    assert sample.question.row == 3
    stored = attempt_row(question.question_id)
    for name in ("call_key", "output", "observation", "think", "answer", "generator", "prompt_id"):
        assert getattr(sample, name) == getattr(stored, name)
    assert (sample.frame_spec, sample.media_id) == ("frames-1", "media-1")
    assert (sample.frame_indices, sample.frame_times) == ((0, 5), (0.0, 0.2))
    assert (sample.reward, sample.metric, sample.extracted) == (1.0, "option letter", "A")
    assert (sample.judge, sample.judge_prompt_id) == ("claude:judge", "prompt-2")
    assert sample.judge_reply == "<judgement>Yes</judgement>"
    assert sample.judge_call_key == f"judge-{question.question_id}-0"
    assert ledger.verify(is_finished=True) == []


@pytest.mark.parametrize(
    ("check", "verdicts", "is_accepted"),
    [
        ({}, [{}], True),
        ({"passed": False, "score": 0.1}, [{}], False),
        ({}, [], False),
        ({}, [{"verdict": "no"}], False),
        ({}, [{"verdict": "unscored", "unscored_reason": "off_menu"}], False),
        ({}, [{"answer_leak": True, "leak_text": "the answer is A"}], False),
        ({}, [{"answer_leak": True, "leak_allowed": True}], True),
        ({}, [{"verdict": None, "answer_leak": True}], False),
        # the last word counts, in whatever order the replies were stored
        ({}, [{"verdict": "unscored"}, {"verdict": "yes", "judge_draw": 1}], True),
        ({}, [{"verdict": "yes"}, {"verdict": "no", "judge_draw": 1}], False),
        ({}, [{"verdict": "no", "judge_draw": 1}, {"verdict": "yes"}], False),
        ({}, [{"verdict": "yes"}, {"verdict": None, "judge_draw": 1}], False),
    ],
)
def test_only_a_checked_trace_with_a_last_yes_and_no_leak_is_accepted(
    ledger: Ledger, check: dict, verdicts: list[dict], is_accepted: bool
) -> None:
    question = a_question(0)
    ledger.add_question(question)
    ledger.add_attempt(attempt_row(question.question_id))
    ledger.add_answer_check(check_row(question.question_id, **check))
    for verdict in verdicts:
        ledger.add_sufficiency(verdict_row(question.question_id, **verdict))
    assert bool(accepted(ledger)) == is_accepted
    assert ledger.finished_question_ids() == ({question.question_id} if is_accepted else set())


def reply(verdict: Sufficiency, leak_text: str | None = None) -> SufficiencyRow:
    return SufficiencyRow.of_reply(
        a_question(0).question_id,
        0,
        verdict,
        judge="claude:judge",
        judge_draw=0,
        call_key="judge",
        prompt_id="prompt-2",
        reply="...",
        leak_text=leak_text,
    )


def test_a_verdict_on_a_leak_that_was_allowed_is_accepted(ledger: Ledger) -> None:
    question = a_question(0)
    leak = SufficiencyRow.of_leak(question.question_id, 0, "the answer is A", judge="claude:judge")
    for row, is_accepted in (
        (leak, False),
        (reply(Sufficiency("yes"), leak_text="the answer is A"), True),
        (reply(Sufficiency("yes")), True),
        (reply(Sufficiency("unscored", UnscoredReason.OFF_MENU)), False),
    ):
        accept(ledger, question)
        ledger.add_sufficiency(row)  # takes the place of the one before
        assert bool(accepted(ledger)) == is_accepted
    assert (leak.verdict, leak.answer_leak, leak.leak_allowed) == (None, True, False)


def test_a_verdict_is_one_of_three_words() -> None:
    with pytest.raises(ValueError, match="a verdict is yes, no, unscored or None, not 'maybe'"):
        verdict_row("q", verdict="maybe")


def test_the_first_passing_draw_is_the_accepted_one(ledger: Ledger) -> None:
    question = a_question(0)
    accept(ledger, question, draw=2)
    accept(ledger, question, draw=1)
    ledger.add_attempt(attempt_row(question.question_id, 0))
    ledger.add_answer_check(check_row(question.question_id, 0, passed=False))
    assert accepted(ledger) == [(question.question_id, 1)]
    assert [sample.draw for sample in ledger.samples()] == [1]


def test_the_funnel_counts_every_outcome_by_source_and_type(ledger: Ledger) -> None:
    for row in range(4):
        accept(ledger, a_question(row))
    ocr = {"problem_type": ProblemType.OCR, "options": (), "data_source": "signs"}
    for row in range(4, 7):
        question = a_question(row, **ocr)
        ledger.add_question(question)
        ledger.add_rejection(question.question_id, LOW)
    unreadable = SimpleNamespace(
        question_id="row-1", row=7, problem_id="x", data_source="signs", problem_type=""
    )
    ledger.add_question(unreadable)
    ledger.add_rejection("row-1", Rejection(Step.READ, Reason.INVALID_QUESTION, "no options"))
    ledger.add_question(a_question(8))
    assert ledger.funnel() == [
        FunnelRow("read", "invalid_question", "signs", "", 1),
        FunnelRow("verify", "low_score", "signs", "OCR", 3),
        FunnelRow("accepted", "", "source", "multiple choice", 4),
    ]
    assert ledger.num_questions() == 9
    assert ledger.query("SELECT count(DISTINCT question_id) FROM questions") == [(9,)]
    assert len(ledger.finished_question_ids()) == 8
    assert ledger.verify() == []
    (unfinished,) = ledger.verify(is_finished=True)
    assert a_question(8).question_id in unfinished
    assert "neither" in unfinished


def test_samples_come_in_file_order_whatever_order_they_ended_in(ledger: Ledger) -> None:
    for row in (5, 2, 9, 0, 7, 4):
        accept(ledger, a_question(row))
    assert [sample.question.row for sample in ledger.samples(batch_rows=4)] == [0, 2, 4, 5, 7, 9]


def test_samples_show_the_ledger_as_it_was_when_their_reading_began(ledger: Ledger) -> None:
    for row in range(6):
        accept(ledger, a_question(row))
    samples = ledger.samples(batch_rows=2)
    rows = [next(samples).question.row]
    accept(ledger, a_question(6))
    ledger.add_rejection(a_question(3).question_id, LOW)
    ledger.flush()
    rows += [sample.question.row for sample in samples]
    assert rows == [0, 1, 2, 3, 4, 5]
    next(ledger.samples())  # a reading that is left open does not hinder the closing


def test_questions_are_stored_once_also_after_reopening(tmp_path: Path) -> None:
    questions = [a_question(row) for row in range(500)]
    path = tmp_path / "cot.duckdb"
    with Ledger.open(path, a_run(0)) as ledger:
        assert ledger.add_questions(questions[:300]) == 300
        assert ledger.add_questions(questions[100:400]) == 100
    with Ledger.open(path, a_run(1)) as ledger:
        assert ledger.add_questions(questions) == 100
        assert ledger.add_question(questions[0]) is False
        assert ledger.query("SELECT count(*), count(DISTINCT question_id) FROM questions") == [
            (500, 500)
        ]
        assert ledger.verify() == []


def test_the_first_outcome_of_a_question_stays(tmp_path: Path) -> None:
    rejected, taken = a_question(0), a_question(1)
    path = tmp_path / "cot.duckdb"
    with Ledger.open(path, a_run(0)) as ledger:
        accept(ledger, taken)
        ledger.add_question(rejected)
        assert ledger.add_rejection(rejected.question_id, LOW)
        assert not ledger.add_rejection(rejected.question_id, FAILED)
    with Ledger.open(path, a_run(1)) as ledger:
        assert not ledger.add_rejection(rejected.question_id, FAILED)
        assert not ledger.add_rejection(taken.question_id, FAILED)
        assert ledger.query("SELECT reason, detail, run_id FROM rejections") == [
            ("low_score", "0.1 is below 0.6", "run-0")
        ]
        assert ledger.verify(is_finished=True) == []


def test_a_repeated_step_replaces_its_row_and_the_last_one_counts(ledger: Ledger) -> None:
    question = a_question(0)
    accept(ledger, question)
    ledger.flush()
    for output in ("second", "third"):  # both in one batch
        ledger.add_attempt(attempt_row(question.question_id, output=output))
    assert ledger.query("SELECT output FROM attempts") == [("third",)]


def a_reading(question_id: str) -> tuple[ReaderCheckRow, list[ReaderAnswerRow]]:
    """One blind answer of a text reader, and what followed from it."""
    check = ReaderCheckRow(
        question_id=question_id,
        evidence="none",
        reader="claude:reader",
        prompt_id="prompt-reader",
        samples=1,
        correct=1,
        unscored=0,
        rate=1.0,
        verdict="yes",
    )
    answer = ReaderAnswerRow(
        question_id=question_id, evidence="none", sample=0, call_key="c", correct=True
    )
    return check, [answer]


def test_unfinished_work_is_discarded_and_finished_work_stays(ledger: Ledger) -> None:
    accept(ledger, a_question(0))
    rejected, cut_off = a_question(1), a_question(2)
    for question in (rejected, cut_off):
        ledger.add_question(question)
        ledger.add_attempt(attempt_row(question.question_id))
        ledger.add_answer_check(check_row(question.question_id))
        ledger.add_sufficiency(verdict_row(question.question_id, verdict="no"))
        ledger.add_reading(*a_reading(question.question_id))
    ledger.add_rejection(rejected.question_id, Rejection(Step.FILTER, Reason.INSUFFICIENT, ""))
    assert ledger.discard_unfinished() == 1
    for table in ("attempts", "answer_checks", "sufficiency_verdicts"):
        left = {question_id for (question_id,) in ledger.query(f"SELECT question_id FROM {table}")}
        assert left == {a_question(0).question_id, rejected.question_id}
    for table in ("reader_answers", "reader_checks"):
        left = {question_id for (question_id,) in ledger.query(f"SELECT question_id FROM {table}")}
        assert left == {rejected.question_id}
    assert ledger.verify() == []


def test_spend_sums_tokens_and_known_prices(ledger: Ledger) -> None:
    ledger.add_call(call_row("a", step="generate", cache_read_tokens=7))
    ledger.add_call(call_row("b", "empty", step="generate", is_final=False))
    ledger.add_call(call_row("c", step="filter", model="free", cost_usd=None))
    generate, judge = ledger.spend()
    assert (generate.step, generate.calls, generate.input_tokens) == ("generate", 2, 20)
    assert (generate.output_tokens, generate.cache_read_tokens) == (6, 7)
    assert (generate.cost_usd, generate.unpriced_calls) == (0.5, 0)
    assert (judge.model, judge.calls, judge.cost_usd, judge.unpriced_calls) == ("free", 1, None, 1)
    assert ledger.spent_usd() == 0.5


def test_averages_say_what_a_build_has_seen(ledger: Ledger) -> None:
    assert ledger.averages()["trace_tokens"] == 0
    accept(ledger, a_question(0))
    cut = a_question(1)
    ledger.add_attempt(attempt_row(cut.question_id))
    ledger.add_call(call_row("x", step="generate", output_tokens=5))
    assert ledger.averages() == {
        "questions": 2,
        "generated": 2,
        "verified": 1,
        "judged": 1,
        "trace_tokens": 4.0,  # (3 + 5) / 2
        "observation_words": 4.0,
        "judge_reply_tokens": 3.0,
        "asked_blind": 0,
        "rejected_blind": 0,
        "read": 0,
        "blind_reply_tokens": 0,
        "read_reply_tokens": 0,
    }


VIOLATIONS = {
    "both accepted and rejected": "INSERT INTO rejections VALUES ('{id}', 'verify', 'x', '', 'r')",
    "attempt but no question": "DELETE FROM questions",
    "answer check but no attempt": "INSERT INTO answer_checks VALUES ('q', 0, 'm', 1, true, '')",
    "sufficiency verdict but no attempt": "UPDATE sufficiency_verdicts SET draw = 7",
    "rejection but no question": "INSERT INTO rejections VALUES ('q', 'verify', 'x', '', 'r')",
    "does not derive": "UPDATE questions SET solution = 'B'",
    "does not derive from": "UPDATE questions SET options = '[]'",
    "output comes from no answered call": "DELETE FROM calls WHERE step = 'generate'",
    "verdict comes from no answered call": "DELETE FROM calls WHERE step = 'filter'",
    "more than one final outcome": "INSERT INTO calls SELECT * FROM calls LIMIT 1",
    "unreadable but has no rejection": "UPDATE questions SET problem = NULL",
    "request but no batch": "INSERT INTO batch_requests VALUES ('i', 'c', false)",
    "text reader's check but no question": "INSERT INTO reader_checks"
    " VALUES ('q', 'none', 0, 'r', 'p', 4, 4, 0, 1, NULL, NULL, 'yes')",
    "another number of a text reader's answers": "INSERT INTO reader_checks"
    " VALUES ('{id}', 'none', 0, 'r', 'p', 4, 4, 0, 1, NULL, NULL, 'yes')",
}


@pytest.mark.parametrize("words", VIOLATIONS)
def test_verify_names_what_was_tampered_with(tmp_path: Path, words: str) -> None:
    import duckdb

    path = tmp_path / "cot.duckdb"
    question = a_question(0)
    with Ledger.open(path, a_run(0)) as ledger:
        accept(ledger, question)
        assert ledger.verify(is_finished=True) == []
    with duckdb.connect(str(path)) as other:
        other.execute(VIOLATIONS[words].format(id=question.question_id))
    with Ledger.open(path, a_run(1)) as ledger:
        assert any(words in sentence for sentence in ledger.verify()), ledger.verify()
