"""Answers taken apart: seen and concluded, against the truth of the clip that was shown."""

import json
from pathlib import Path

import pytest

from cli.config import UsageError
from sandbox.clips import main as render
from sandbox.crucial_frames import AttendedGroup, compared
from sandbox.lessons.observation_measures import JudgedAnswer, judge_file, measure
from sandbox.lessons.tables import pooled_gain
from sandbox.observations import main
from sandbox.teacher.traces import write_trace
from sandbox.world.questions import ground_truth, parse_query
from sandbox.world.rendered import RenderedWorld
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion
from train.evaluation.predictions import Prediction, RunConditions
from train.evaluation.predictions_file import write_predictions


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("observations") / "world"
    sizes = ["--clips", "20", "--stills", "0", "--num-questions", "40"]
    assert render(["--preset", "tiny", "--out", str(root), *sizes]) == 0
    return root


def questions_of(root: Path) -> list[VideoQuestion]:
    return [
        one for one in read_questions(root / "questions.json") if isinstance(one, VideoQuestion)
    ]


def said(root: Path, question: VideoQuestion, *, sees: bool = True, answers: bool = True) -> str:
    """A trace about `question`, its observation and its answer right or wrong."""
    world, query = RenderedWorld(root), parse_query(question.problem)
    assert query is not None
    facts = world.facts(question.media[0].path)
    if not sees:
        facts = (facts[0]._replace(t=(facts[0].t + 1) % 4), *facts[1:])
    value = question.options["ABCD".index(question.solution)][3:]
    wrong = question.options[("ABCD".index(question.solution) + 1) % 4][3:]
    return write_trace("p2r", query, facts, value if answers else wrong, world.config)


def test_shares_are_those_that_were_made(root: Path, tmp_path: Path) -> None:
    """Of 40: 20 seen (15 of them answered right), 10 unseen (4 right), 10 broken."""
    predictions = []
    for i, question in enumerate(questions_of(root)):
        sees, answers = i < 20, i < 15 or 20 <= i < 24
        text = said(root, question, sees=sees, answers=answers)
        if i >= 30:
            text = text.replace("</think>", "")
        predictions.append(Prediction(question=question, output=text))
    file = tmp_path / "predictions.parquet"
    write_predictions(file, RunConditions(), predictions)
    found = measure(judge_file(file, RenderedWorld(root)))
    assert (found.answers, found.right, found.adherence, found.seen) == (40, 19 / 40, 0.75, 0.5)
    assert 0.5 <= found.sufficient <= 0.75  # what is wrong in some is not what was asked
    assert found.right_if_seen == 15 / 20
    assert found.right_if_not_seen == 4 / 20
    assert found.blind == 0.25
    assert 0.5 < found.attributes < 0.75

    out = tmp_path / "measures.json"
    assert main([str(file), "--media-root", str(root), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["overall"]["right"] == 19 / 40


def test_an_observation_suffices_by_what_its_question_hinges_on(root: Path, tmp_path: Path) -> None:
    """Without the rest it suffices and is not all that is seen; without what is asked, neither."""
    world = RenderedWorld(root)
    predictions, expected = [], []
    for question in questions_of(root):
        query = parse_query(question.problem)
        assert query is not None
        clip, facts = world.clip(question.media[0].path), world.facts(question.media[0].path)
        truth = ground_truth(query, clip, facts, world.config)
        assert truth is not None
        rest = tuple(fact for fact in facts if fact not in truth.crucial)
        if not rest:
            continue
        for told in (tuple(fact for fact in facts if fact in truth.crucial), rest):
            text = write_trace("p2r", query, told, truth.value, world.config)
            predictions.append(Prediction(question=question, output=text))
            expected.append(told != rest)
    file = tmp_path / "predictions.parquet"
    write_predictions(file, RunConditions(), predictions)
    judged = judge_file(file, world)
    assert [one.is_sufficient for one in judged] == expected
    assert True in expected
    assert not any(one.is_seen for one in judged)


def test_the_observation_is_held_against_the_clip_that_was_shown(
    root: Path, tmp_path: Path
) -> None:
    world = RenderedWorld(root)
    question = questions_of(root)[0]
    own = question.media[0].path
    other = next(
        f"videos/{file.stem}.mp4"
        for file in sorted((root / "truth").iterdir())
        if world.facts(f"videos/{file.stem}.mp4") != world.facts(own)
    )
    answer = Prediction(question=question, output=said(root, question), shown=(other,))
    write_predictions(tmp_path / "p.parquet", RunConditions(), [answer])
    (judged,) = judge_file(tmp_path / "p.parquet", world)
    assert judged.is_right
    assert judged.is_sufficient  # for the question that was asked, about its own clip
    assert not judged.is_seen


def test_a_folder_that_is_no_world_is_one_sentence(root: Path, tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", RunConditions(), [Prediction(questions_of(root)[0])])
    with pytest.raises(UsageError, match=r"holds no world of the sandbox.*--media-root"):
        main([str(tmp_path / "p.parquet"), "--media-root", str(tmp_path)])


def test_gains_are_paired_by_question_and_pooled_over_runs(root: Path, tmp_path: Path) -> None:
    """The start is right in 10 of 40; one run in 20 of them, another in 30: +37.5 points."""

    def judged(name: str, count: int) -> list[JudgedAnswer]:
        rows = [
            Prediction(question=one, output=said(root, one, answers=i < count))
            for i, one in enumerate(questions_of(root))
        ]
        write_predictions(tmp_path / name, RunConditions(), rows)
        return list(judge_file(tmp_path / name, RenderedWorld(root)))

    start, first, second = (judged(f"{count}.parquet", count) for count in (10, 20, 30))
    gain = pooled_gain(start, [first, second], "is_right")
    assert gain.value == pytest.approx(0.375)
    assert 0 < gain.low < 0.375 < gain.high < 1
    # A run compared with itself gained nothing, and the interval says so.
    nothing = pooled_gain(start, [start], "is_right")
    assert nothing.value == 0
    assert nothing.low < 0 < nothing.high
    with pytest.raises(ValueError, match="other questions"):
        pooled_gain(start, [first[:-1]], "is_right")


def test_selections_are_compared_with_the_crucial_cells_and_with_chance() -> None:
    """Two completions look at cell 2, one at cell 0; only those that look at 2 are right."""
    import torch

    attention = torch.full((3, 4, 4), 0.1)
    attention[0, :, 2] = attention[1, :, 2] = attention[2, :, 0] = 0.6
    groups = [AttendedGroup(attention, torch.tensor([1.0, 1.0, 0.0]), frozenset({2}))]
    soft = compared(groups, "soft", 1, score_tokens=2)
    assert (soft["groups"], soft["selected"]) == (1, 1)
    assert (soft["recall"], soft["precision"]) == (1.0, 1.0)
    assert (soft["recall_by_chance"], soft["precision_by_chance"]) == (0.25, 0.25)
    everyone = compared(groups, "all", 1, score_tokens=2)
    assert (everyone["recall"], everyone["precision"]) == (1.0, 0.5)
    assert (everyone["recall_by_chance"], everyone["precision_by_chance"]) == (0.5, 0.25)
    nobody = [AttendedGroup(attention, torch.zeros(3), frozenset({2}))]
    assert compared(nobody, "soft", 1, score_tokens=2)["recall"] is None
