"""The best-constant baseline, compared with trying every guess on every question."""

import json
from pathlib import Path

import pytest

from judges.scoring.answer_score import score_answer
from sandbox.world.blind_baseline import BaselineTally
from sandbox.world.questions import video_question
from schemas.questions import MediaRef, ProblemType, VideoQuestion


def choice(solution: str, problem: str = "Which?") -> VideoQuestion:
    return VideoQuestion(
        problem=problem,
        options=("A. red", "B. blue"),
        solution=solution,
        media=(MediaRef(kind="video", path="a.mp4"),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
    )


def number(solution: str, problem_type: ProblemType) -> VideoQuestion:
    media = (MediaRef(kind="video", path="a.mp4"),)
    return VideoQuestion(problem="How?", solution=solution, media=media, problem_type=problem_type)


def test_three_questions_of_which_two_have_the_same_answer() -> None:
    tally = BaselineTally()
    for letter in "AAB":
        tally.add("colour", "Which?", choice(letter))
    baseline = tally.baseline()
    assert baseline.by_kind["colour"] == (3, "A", pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert baseline.overall == pytest.approx(2 / 3)


def test_a_wording_that_gives_the_answer_away_shows_in_the_baseline_given_the_text() -> None:
    tally = BaselineTally()
    tally.add("colour", "Is it red?", choice("A", "Is it red?"), 5)
    tally.add("colour", "Is it blue?", choice("B", "Is it blue?"), 5)
    baseline = tally.baseline()
    assert (baseline.overall, baseline.given_the_text) == (0.5, 1.0)


def test_between_two_numbers_the_smaller_is_the_better_guess() -> None:
    # gold 1 and 2: guessing 1 scores (1 + 0.5) / 2, guessing 1.5 only (0.5 + 0.75) / 2
    tally = BaselineTally()
    for gold in ("1", "2"):
        tally.add("duration", "How?", number(gold, ProblemType.REGRESSION))
    assert tally.baseline().by_kind["duration"].score == pytest.approx(0.75)


def test_an_interval_that_is_no_answer_may_be_the_best_guess() -> None:
    # 2 to 6 scores 4/6, 3/4 and 3/4, together 13/6; the best answer, 3 to 6, 3/6, 2/4 and 1
    tally = BaselineTally()
    for gold in ("0 to 6", "2 to 5", "3 to 6"):
        tally.add("span", "When?", number(gold, ProblemType.TEMPORAL_GROUNDING))
    guess = tally.baseline().by_kind["span"]
    assert (guess.guess, guess.score) == ("2 to 6", pytest.approx(13 / 18))


def test_the_stored_baseline_is_what_brute_force_finds(sandbox_world: Path) -> None:
    rows = json.loads((sandbox_world / "questions.json").read_text())
    stored = json.loads((sandbox_world / "world.json").read_text())["blind"]
    by_kind: dict[str, list[VideoQuestion]] = {}
    for row in rows:
        kind = row["data_source"].removeprefix("sandbox/")
        by_kind.setdefault(kind, []).append(video_question(row))
    assert set(stored["by_kind"]) == set(by_kind)
    weighted = 0.0
    for kind, questions in by_kind.items():
        guesses = {question.solution for question in questions}
        if questions[0].problem_type is ProblemType.REGRESSION:
            guesses |= {f"{step / 4:g}" for step in range(4, 29)}
        if questions[0].problem_type is ProblemType.TEMPORAL_GROUNDING:
            guesses |= {f"{a} to {b}" for a in range(8) for b in range(a + 1, 9)}
        best = max(
            sum(score_answer(question, guess) for question in questions) / len(questions)
            for guess in guesses
        )
        assert stored["by_kind"][kind]["score"] == pytest.approx(best, abs=1e-4), kind
        weighted += best * len(questions)
    assert stored["overall"] == pytest.approx(weighted / len(rows), abs=1e-4)


def test_seeing_nothing_is_worth_little_in_every_problem_type(sandbox_world: Path) -> None:
    stored = json.loads((sandbox_world / "world.json").read_text())["blind"]
    assert set(stored["by_type"]) == {problem_type.value for problem_type in ProblemType}
    assert stored["overall"] < 0.35
