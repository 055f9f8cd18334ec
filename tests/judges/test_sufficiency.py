"""How a judge's reply is read, and when it is asked again."""

import time

import pytest
from helpers.scoring_questions import choice_question
from hypothesis import given
from hypothesis import strategies as st

from judges.backends.base import ChatRequest, Reply, StopReason, Usage
from judges.backends.call_records import CallFailure, CallResult
from judges.sufficiency import judge_sufficiency, parse_judgement, verdict_of
from schemas.samples import Reason, Sufficiency, UnscoredReason

YES, NO = "<judgement>Yes</judgement>", "<judgement>No</judgement>"

SCORED = [
    (YES, "yes", "as asked"),
    (NO, "no", "as asked"),
    (f"The text tells it.\n\n{YES}", "yes", "after the explanation"),
    (f"{YES}\n", "yes", "white space after it"),
    (f"{NO} I hope this helps.", "no", "chatter after it"),
    (f"{NO} ... on second thoughts {YES}", "yes", "the last one decides"),
    (f"{YES}{NO}", "no", "the last one decides, the other way round"),
    (f"I must write {YES} or {NO}. {NO}", "no", "the menu is quoted first"),
    ("<judgement>yes</judgement>", "yes", "lower case"),
    ("<JUDGEMENT>NO</JUDGEMENT>", "no", "upper case"),
    ("<judgement>\n Yes \n</judgement>", "yes", "white space inside"),
    ("<judgement>Yes.</judgement>", "yes", "a full stop inside (T15: must not hide the block)"),
    (f"{YES} <judgement>No.</judgement>", "no", "a full stop in the last block, Yes before it"),
    ("<judgement>**No**</judgement>", "no", "markdown inside"),
    ("**<judgement>Yes</judgement>**", "yes", "markdown outside"),
    ('<judgement>"Yes"</judgement>', "yes", "quotes inside"),
    ("<judgement>Yes\u200b</judgement>", "yes", "a zero-width space inside"),
    ("< judgement >Yes< / judgement >", "yes", "spaces in the tags"),
    ("<judgment>No</judgment>", "no", "the American spelling"),
    ('<judgement value="x">No</judgement>', "no", "an attribute"),
    ("<judgement><judgement>Yes</judgement></judgement>", "yes", "doubled tags, one meaning"),
    (f"They wrote &lt;judgement>No&lt;/judgement>. {YES}", "yes", "an escaped forgery is quoted"),
    (f"{NO}\n\nIf you have more observations, send them.", "no", "chatter with a condition"),
    (f"{NO} &lt;judgement>Yes&lt;/judgement>", "no", "an escaped forgery is quoted last"),
]

UNSCORED = [
    ("", UnscoredReason.EMPTY_REPLY, "nothing"),
    (" \n\t", UnscoredReason.EMPTY_REPLY, "only white space"),
    ("Yes", UnscoredReason.NO_JUDGEMENT, "no tags: the word may be part of a sentence"),
    ("The answer is yes, sufficient.", UnscoredReason.NO_JUDGEMENT, "no tags"),
    ("judgement: Yes", UnscoredReason.NO_JUDGEMENT, "no tags"),
    ("[judgement]Yes[/judgement]", UnscoredReason.NO_JUDGEMENT, "other brackets"),
    ("</judgement>Yes", UnscoredReason.NO_JUDGEMENT, "only a closing tag"),
    ("&lt;judgement>Yes&lt;/judgement>", UnscoredReason.NO_JUDGEMENT, "only a quoted forgery"),
    ("<judgements>Yes</judgements>", UnscoredReason.NO_JUDGEMENT, "another tag"),
    ("<judgement></judgement>", UnscoredReason.OFF_MENU, "an empty block"),
    ("<judgement>Maybe</judgement>", UnscoredReason.OFF_MENU, "a third answer"),
    ("<judgement>Yes/No</judgement>", UnscoredReason.OFF_MENU, "both"),
    ("<judgement>Yes|No</judgement>", UnscoredReason.OFF_MENU, "the menu itself"),
    ("<judgement>Yes, mostly</judgement>", UnscoredReason.OFF_MENU, "hedged"),
    ("<judgement>Not sure</judgement>", UnscoredReason.OFF_MENU, "begins like No"),
    ("<judgement>Nope</judgement>", UnscoredReason.OFF_MENU, "begins like No"),
    ("<judgement>1</judgement>", UnscoredReason.OFF_MENU, "a number (T3)"),
    ("<judgement>Y</judgement>", UnscoredReason.OFF_MENU, "an abbreviation"),
    ("<judgement>True</judgement>", UnscoredReason.OFF_MENU, "another vocabulary"),
    (f"{YES} <judgement>Unclear</judgement>", UnscoredReason.OFF_MENU,
     "an odd last block does not let an earlier verdict through (T15)"),
    (f"{YES} <judgement>No", UnscoredReason.OFF_MENU, "the last block is cut"),
    ("<judgement>Yes", UnscoredReason.OFF_MENU, "cut before the closing tag"),
    ("<judgement>Yes<judgement>", UnscoredReason.OFF_MENU, "closed by an opening tag"),
    (f"{NO} So I used the <judgement> tag.", UnscoredReason.OFF_MENU, "the tag is mentioned later"),
    ("<judgement/>Yes", UnscoredReason.OFF_MENU, "a self-closing tag"),
    ("<judgement>Yes No</judgement>", UnscoredReason.OFF_MENU, "both"),
    (f"End with {YES} or {NO}.", UnscoredReason.OFF_MENU, "the menu is quoted last"),
    (f"{YES} / {NO}", UnscoredReason.OFF_MENU, "a choice left open"),
    (f"{YES} if it can be deduced, {NO} if it cannot.", UnscoredReason.OFF_MENU,
     "the instruction is said again"),
    (f"{YES} if it were brighter, otherwise {NO}", UnscoredReason.OFF_MENU, "a condition"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "verdict", "why"), SCORED, ids=[row[2] for row in SCORED])
def test_the_last_judgement_decides(reply: str, verdict: str, why: str) -> None:
    assert parse_judgement(reply).verdict == verdict


@pytest.mark.parametrize(("reply", "reason", "why"), UNSCORED, ids=[row[2] for row in UNSCORED])
def test_anything_else_is_unscored_with_its_reason_and_no_no(
    reply: str, reason: UnscoredReason, why: str
) -> None:
    assert parse_judgement(reply) == Sufficiency("unscored", reason)


@given(st.text(st.characters(exclude_characters="<>/|aeio")), st.booleans())
def test_whatever_stands_before_the_last_judgement_does_not_count(text: str, yes: bool) -> None:
    verdict = parse_judgement(f"{YES}{text}{NO}{text}{YES if yes else NO}{text}").verdict
    assert verdict == ("yes" if yes else "no")


@pytest.mark.parametrize("piece", ["<", "<judgement", "<judgement>", "< ", YES, "</judgement>"])
def test_a_megabyte_of_reply_is_read_in_linear_time(piece: str) -> None:
    started = time.process_time()
    parse_judgement(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (StopReason.MAX_TOKENS, UnscoredReason.TRUNCATED),
        (StopReason.REFUSAL, UnscoredReason.REFUSED),
    ],
)
def test_a_cut_or_refused_reply_is_unscored_even_with_a_judgement_in_it(
    stop: StopReason, reason: UnscoredReason
) -> None:
    assert verdict_of(Reply(YES, stop, Usage())) == Sufficiency("unscored", reason)
    assert verdict_of(Reply(YES, StopReason.END, Usage())) == Sufficiency("yes")


class ScriptedCaller:
    """Answers each call with the next outcome of the script and keeps what it was asked."""

    def __init__(self, *outcomes: str | CallFailure) -> None:
        self.outcomes = list(outcomes)
        self.requests: list[ChatRequest] = []

    async def call(self, request: ChatRequest) -> CallResult:
        self.requests.append(request)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, str):
            return CallResult(f"call-{request.draw}", Reply(outcome, StopReason.END, Usage()))
        return CallResult(f"call-{request.draw}", outcome)


async def test_a_verdict_ends_the_asking() -> None:
    caller = ScriptedCaller(NO)
    outcome = await judge_sufficiency(caller, choice_question(), "Stripes.")
    assert outcome.verdict == Sufficiency("no")
    assert outcome.failure is None
    assert [(reply.call_key, reply.judge_draw, reply.reply) for reply in outcome.replies] == [
        ("call-0", 0, NO)
    ]
    assert outcome.prompt_id.startswith("prompt-")


async def test_an_unscored_reply_is_asked_again_as_the_next_draw() -> None:
    caller = ScriptedCaller("Yes, I think.", "<judgement>Maybe</judgement>", YES)
    outcome = await judge_sufficiency(
        caller, choice_question(), "Stripes.", max_tokens=77, sampling=(("temperature", 0.0),)
    )
    assert outcome.verdict == Sufficiency("yes")
    assert [reply.verdict.unscored_reason for reply in outcome.replies] == [
        UnscoredReason.NO_JUDGEMENT,
        UnscoredReason.OFF_MENU,
        None,
    ]
    assert [request.draw for request in caller.requests] == [0, 1, 2]
    assert {request.text for request in caller.requests} == {caller.requests[0].text}
    assert {(request.max_tokens, request.sampling) for request in caller.requests} == {
        (77, (("temperature", 0.0),))
    }


@pytest.mark.parametrize("retries", [0, 1, 2])
async def test_a_judge_that_never_decides_stays_unscored(retries: int) -> None:
    caller = ScriptedCaller(*["hm"] * 9)
    outcome = await judge_sufficiency(caller, choice_question(), "Stripes.", retries=retries)
    assert outcome.verdict == Sufficiency("unscored", UnscoredReason.NO_JUDGEMENT)
    assert len(outcome.replies) == len(caller.requests) == retries + 1
    assert outcome.failure is None


@pytest.mark.parametrize(
    ("reason", "unscored"),
    [
        (Reason.EMPTY_REPLY, UnscoredReason.EMPTY_REPLY),
        (Reason.TRUNCATED, UnscoredReason.TRUNCATED),
        (Reason.REFUSED, UnscoredReason.REFUSED),
        (Reason.CALL_FAILED, UnscoredReason.NO_REPLY),
        (Reason.BAD_REQUEST, UnscoredReason.NO_REPLY),
    ],
)
async def test_a_failed_call_is_unscored_and_not_asked_again(
    reason: Reason, unscored: UnscoredReason
) -> None:
    failure = CallFailure(reason, "the server's words")
    caller = ScriptedCaller("hm", failure, YES)
    outcome = await judge_sufficiency(caller, choice_question(), "Stripes.")
    assert outcome.verdict == Sufficiency("unscored", unscored)
    assert outcome.failure is failure
    assert len(outcome.replies) == 1
    assert len(caller.requests) == 2
