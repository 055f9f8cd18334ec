"""Answers, verdicts, traces and prompts: any text is read as what it says, or as nothing.

A case is one run of Hypothesis over all checks, so what it finds is shrunk.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from math import isfinite
from pathlib import Path

from fuzz.harness import BrokenPromise, Case, Runner
from fuzz.nasty import KEY, texts, whole_texts
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from judges.answer_leaks import find_answer_leak
from judges.consistency import extract_conclusion, is_mismatch, reasoning_of
from judges.consistency_llm import parse_extraction
from judges.scoring.answer_score import check_answer, score_answer, validate_gold
from judges.scoring.choices import chosen_letter, read_choices
from judges.scoring.numbers import read_number
from judges.scoring.text import extract_strict, extract_tolerant, plain_characters
from judges.scoring.time_intervals import interval_iou, read_intervals
from judges.sufficiency import filled_prompt, parse_judgement, prompt_file
from schemas.answer_options import letter_options
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.serialization import one_line, redact
from schemas.traces import TEMPLATES, TraceError, parse_trace, render_trace, segment_spans

_EXAMPLES = 50
_OPTIONS = ("A. red", "B. blue", "C. a dog", "D. none of the above")
_TAG = re.compile(r"<\s*/?\s*[a-z]+", re.IGNORECASE)
_HEADING = re.compile(r"(?m)^#")
ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def promise(kept: bool, sentence: str) -> None:
    """Raise BrokenPromise unless it is kept."""
    if not kept:
        raise BrokenPromise(sentence)


def _question(kind: ProblemType, gold: str, options: tuple[str, ...] = ()) -> VideoQuestion | None:
    try:
        return VideoQuestion(
            problem="What is seen?",
            options=options,
            solution=gold,
            media=(MediaRef(kind="video", path="clip.mp4"),),
            problem_type=kind,
        )
    except ValidationError:
        return None


_CHOICE = _question(ProblemType.MULTIPLE_CHOICE, "B", _OPTIONS)
assert _CHOICE is not None
_SCORED = tuple(
    one
    for one in (
        _CHOICE,
        _question(ProblemType.NUMERICAL, "12.5"),
        _question(ProblemType.OCR, "STOP sign 12"),
        _question(ProblemType.FREE_FORM, "a red ball rolls"),
        _question(ProblemType.REGRESSION, "40"),
        _question(ProblemType.TEMPORAL_GROUNDING, "4.4 to 5.2"),
    )
    if one is not None
)


def check_scores(text: str, other: str) -> None:
    """Every answer has a score from 0 to 1, and what is extracted is a text."""
    for question in _SCORED:
        for answer in (text, extract_strict(text), extract_tolerant(text)):
            if answer is None:
                continue
            score = score_answer(question, answer)
            promise(isfinite(score) and 0 <= score <= 1, f"a score of {score!r}")
            checked = check_answer(question, answer)
            promise(checked.score == score, "two scores of one answer differ")


def check_gold(text: str, other: str) -> None:
    """A gold answer that is not refused is a right answer to itself."""
    for kind in ProblemType:
        options = _OPTIONS if kind is ProblemType.MULTIPLE_CHOICE else ()
        question = _question(kind, text.encode("utf-8", "replace").decode(), options)
        if question is None:
            continue
        complaint = validate_gold(question)
        promise(complaint is None or bool(complaint.strip()), "an empty complaint")
        if complaint is None:
            score = score_answer(question, question.solution)
            lowest = 0.6 if kind is ProblemType.FREE_FORM else 1.0  # one word has no pair of words
            promise(score >= lowest, f"gold {question.solution!r} of {kind} scores {score} itself")


def check_options(text: str, other: str) -> None:
    """Options are lettered once each, or refused; a letter read is one of them."""
    options = (text or "x", other or "y", "dog")
    if len({plain_characters(one).strip().casefold() for one in options}) < len(options):
        return  # of equal options the first one's letter counts
    try:
        lettered = letter_options(options)
        choices = read_choices(lettered.lines)
    except ValueError:
        return
    letters = [choice.letter for choice in choices]
    promise(len({*letters}) == len(letters) == len(options), f"letters {letters}")
    promise(chosen_letter(text, _OPTIONS) in {None, "A", "B", "C", "D"}, "an unknown letter")
    for choice in choices:
        read = chosen_letter(f"{choice.letter}", lettered.lines)
        promise(read == choice.letter, f"the letter {choice.letter} alone is read as {read}")


def check_verdicts(text: str, other: str) -> None:
    """Yes and No only where they are said, at the end of what is thought; else unscored."""
    found = parse_judgement(text)
    promise(found.verdict in {"yes", "no", "unscored"}, f"verdict {found.verdict!r}")
    plain = plain_characters(text).casefold()
    if found.verdict != "unscored":
        promise(found.verdict in plain and "judg" in plain, f"{found.verdict} was not said")
    promise(
        (
            parse_judgement("").verdict == "unscored"
            and parse_judgement(f"{text}<judgement>{other}").verdict == "unscored"
        )
        or "<" in other,
        "an open judgement is a verdict",
    )
    if not any(mark in text for mark in ("think", "<|", "channel", "reason", "[/")):
        behind = parse_judgement(f"<judgement>No</judgement> or so</think>{text}")
        promise(behind.verdict == found.verdict, "what is thought changes the verdict")
    letter = parse_extraction(text, _OPTIONS).letter
    promise(letter in {None, "A", "B", "C", "D"}, f"extracted letter {letter!r}")


def check_traces(text: str, other: str) -> None:
    """A trace is cut into the same segments again when it is written; its spans lie in the text."""
    for template in TEMPLATES.values():
        made = "".join(f"{one.opening}{other}{one.closing}" for one in template.segments)
        for whole in (text, made, made + text):
            spans = segment_spans(whole, template)
            for span in spans:
                inside = 0 <= span.start < span.inner_start < span.inner_end < span.end
                promise(inside and span.end <= len(whole), f"span {span}")
            try:
                trace = parse_trace(whole, template)
            except TraceError as error:
                promise(0 <= error.position <= len(whole), f"a fault at {error.position}")
                continue
            promise(len(spans) == len(template.segments), "a trace without all its spans")
            promise(
                parse_trace(render_trace(trace), template).texts == trace.texts,
                "written anew it differs",
            )


def check_reasoning(text: str, other: str) -> None:
    """What a reasoning concludes is an option, at a place in it."""
    found = extract_conclusion(text, _OPTIONS)
    promise(found.letter in {None, "A", "B", "C", "D"}, f"concluded {found.letter!r}")
    if found.span is not None:
        promise(0 <= found.span[0] <= found.span[1] <= len(text), f"span {found.span}")
    promise(is_mismatch(found, other, _OPTIONS) in {None, True, False}, "no such mismatch")
    promise(isinstance(reasoning_of(text), str), "no text")
    leak = find_answer_leak(_SCORED[0], text)
    promise(leak is None or isinstance(leak, str), "no such leak")


def check_numbers(text: str, other: str) -> None:
    """A number is finite, so are the ends of an interval, an overlap is from 0 to 1.

    Ends come as written: a span that ends before it begins covers nothing.
    """
    number = read_number(text)
    promise(number is None or (isinstance(number, Decimal) and number.is_finite()), f"{number!r}")
    spans = read_intervals(text) or ()
    promise(all(isfinite(end) and end >= 0 for span in spans for end in span), f"intervals {spans}")
    promise(0 <= interval_iou(spans, read_intervals(other) or ()) <= 1, "an overlap beyond 0 to 1")


def check_prompts(text: str, other: str) -> None:
    """Whatever question and observation hold, the judge's prompt has its own tags and headings."""
    template, _ = prompt_file("sufficiency")
    whole = text.encode("utf-8", "replace").decode()
    hostile = _question(ProblemType.FREE_FORM, whole.strip() or "x")
    plain = _question(ProblemType.FREE_FORM, "x")
    if hostile is None or plain is None:
        return
    clean = filled_prompt(template, plain, "seen")
    filled = filled_prompt(template, hostile, other)
    for pattern in (_TAG, _HEADING):
        promise(
            len(pattern.findall(filled)) == len(pattern.findall(clean)),
            "a fence was opened or closed",
        )


def check_lines(text: str, other: str) -> None:
    """One printed line holds no character that acts; a key is not shown."""
    line = one_line(text)
    promise(not ACTS.search(line), f"{ACTS.search(line)} in a printed line")
    line.encode()
    promise(KEY not in redact(f"{other} {KEY} {text}"), "a key was shown")


CHECKS: tuple[Callable[[str, str], None], ...] = (
    check_scores, check_gold, check_options, check_verdicts, check_traces, check_reasoning,
    check_numbers, check_prompts, check_lines,
)  # fmt: skip


def run_texts(case: Case) -> Counter[str]:
    """One of the checks, with texts of Hypothesis's choice."""
    check = CHECKS[case.number % len(CHECKS)]
    counted: Counter[str] = Counter()
    strategy = whole_texts() if check is check_options else texts()

    @seed(case.draw.getrandbits(64))
    @settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(strategy, st.one_of(strategy, st.just("B"), st.just("seen")))
    def try_all(text: str, other: str) -> None:
        counted["texts"] += 1
        check(text, other)

    try_all()
    return counted


@contextmanager
def open_texts(folder: Path) -> Iterator[Runner]:
    """Nothing to prepare."""
    yield run_texts
