"""Answers that exist are scored from their raw text alone."""

import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.config import EXIT_OK, UsageError
from train.evaluate import main
from train.evaluation.predictions_file import read_predictions, write_predictions
from train.evaluation.scoring import mean_relative_accuracy

pytestmark = pytest.mark.heavy

OPTIONS = ["A. red", "B. blue", "C. green"]


def row(number: int, gold: str, output: str, **question: Any) -> dict[str, Any]:
    asked = {
        "problem_id": number,
        "problem": f"Colour {number}?",
        "options": OPTIONS,
        "problem_type": "multiple choice",
        "solution": gold,
        "video": f"{number // 2}.mp4",
        "data_source": "paint" if number % 2 else "cars",
    }
    return {"question": asked | question, "ground_truth": gold, "model_output": output}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


ROWS = [
    row(0, "A", "<think>Therefore, it is red.</think><answer>A</answer>"),
    row(1, "B", "<think>Therefore, it is blue.</think><answer>C</answer>"),
    row(2, "C", "The answer is C."),
    row(3, "A", "I cannot say, <think>"),
    row(4, "10", "<answer>8</answer>", options=[], problem_type="regression"),
    row(5, "2 to 4", "<answer>2 to 6</answer>", options=[], problem_type="temporal grounding"),
]


def scored(folder: Path, rows: list[dict[str, Any]], *options: str) -> dict[str, Any]:
    answers = write(folder / "answers.jsonl", rows)
    assert main(["--predictions", str(answers), "--out", str(folder / "out"), *options]) == EXIT_OK
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


def test_a_clip_of_a_file_stays_one_and_older_files_have_none(tmp_path: Path) -> None:
    found = read_predictions(write(tmp_path / "answers.jsonl", ROWS[:1]))
    asked = found.predictions[0].question
    clip = asked.media[0].model_copy(update={"start": 1.0, "end": 2.5})
    cut = replace(found.predictions[0], question=asked.model_copy(update={"media": (clip,)}))
    path = tmp_path / "predictions.parquet"
    write_predictions(path, found.conditions, [cut, found.predictions[0]])
    again = [one.question for one in read_predictions(path).predictions]
    assert [one.media for one in again] == [(clip,), asked.media]
    table = pq.read_table(path).drop_columns(["spans"])
    pq.write_table(table, path)
    assert read_predictions(path).predictions[1].question == asked


def test_each_reading_is_counted_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = scored(tmp_path, ROWS)
    strict, tolerant = report["overall"]["strict"], report["overall"]["tolerant"]
    # Row 4 reaches 0.6 (1 - 2/10), row 5 does not (2 of 4 seconds).
    assert (strict["correct"], strict["n"], strict["unparsed"]) == (2, 6, 2)
    assert strict["score"] == pytest.approx((1 + 0 + 0 + 0 + 0.8 + 0.5) / 6)
    assert (tolerant["correct"], tolerant["n"], tolerant["unparsed"]) == (3, 6, 1)
    assert tolerant["score"] == pytest.approx((1 + 0 + 1 + 0 + 0.8 + 0.5) / 6)
    assert tolerant["low"] < tolerant["score"] < tolerant["high"]
    parts = report["slices"]["problem type"]
    grounding = parts["temporal grounding"]["grounding"]["tolerant"]
    assert grounding["mean_iou"]["score"] == 0.5
    assert (grounding["iou_at_0.3"]["score"], grounding["iou_at_0.5"]["score"]) == (1, 1)
    accuracy = parts["regression"]["mean_relative_accuracy"]["tolerant"]["score"]
    assert accuracy == pytest.approx(0.6)
    assert report["slices"]["data source"]["cars"]["strict"]["n"] == 3
    # VSI-Bench's own score: numbers 0.6, choices (1 + 0 + 1 + 0) / 4.
    assert report["overall"]["mean_of_numbers_and_choices"]["tolerant"] == pytest.approx(0.55)
    assert "level" not in report["slices"]
    # Choices: A, B, C, A, so "A" is right twice in 4; the constants of one question are its gold.
    assert report["overall"]["best_constant"]["score"] == pytest.approx((2 + 1 + 1) / 6)
    assert parts["multiple choice"]["best_constant"]["answers"] == {"multiple choice": "A"}
    mismatch = report["mismatch"]
    assert (mismatch["compared"], mismatch["mismatches"]) == (2, 1)
    assert mismatch["mismatch"]["score"] == 0.5
    # (1 + 0 + 1 + 0 + 0.8 + 0.5) / 6, with its conditions beside it.
    printed = capsys.readouterr().out
    assert "55 % (3)" in printed
    assert "frames: not recorded" in printed
    columns = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [one["tolerant_answer"] for one in columns] == ["A", "C", "C", None, "8", "2 to 6"]
    assert [one["strict_is_parsed"] for one in columns] == [True, True, False, False, True, True]


def test_levels_of_a_source_are_slices(tmp_path: Path) -> None:
    leveled = [row(0, "A", "<answer>A</answer>", level="L1"), row(1, "A", "B", level="L3"), ROWS[2]]
    levels = scored(tmp_path, leveled)["slices"]["level"]
    assert {name: part["tolerant"]["score"] for name, part in levels.items()} == {"L1": 1, "L3": 0}


def test_every_column_is_documented(repository: Path, tmp_path: Path) -> None:
    """`docs/evaluation.md` names the columns; "(and `tolerant_...`)" stands for those of strict."""
    scored(tmp_path, ROWS[:2])
    text = (repository / "docs" / "evaluation.md").read_text("utf-8")
    table = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"\w+", cell)} - {"and"}
    named |= {name.replace("strict", "tolerant") for name in named if name.startswith("strict")}
    columns = pq.read_schema(tmp_path / "out" / "predictions.parquet").names
    assert set(columns) == named - {"tolerant_"}


def test_a_reasoning_without_a_conclusion_is_no_mismatch(tmp_path: Path) -> None:
    """Of three reasonings two conclude, one of them otherwise: 1/2, or 2/3 with silence counted."""
    silent = row(6, "A", "<think>Hm, hard to say.</think><answer>A</answer>")
    found = scored(tmp_path, [*ROWS[:2], silent])["mismatch"]
    assert (found["compared"], found["without_conclusion"]) == (2, 1)
    assert found["mismatch"]["score"] == 0.5
    assert found["no_conclusion_counted_as_mismatch"]["score"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "how", ["another word", "no object", "a field of another type", "no rows to read"]
)
def test_a_damaged_file_of_ours_is_refused_in_a_sentence(how: str, tmp_path: Path) -> None:
    scored(tmp_path, ROWS)
    written = tmp_path / "out" / "predictions.parquet"
    table = pq.read_table(written)
    match how:
        case "another word":
            notes = {b"p2r.evaluation": b'{"temllate": "x"}'}
        case "no object":
            notes = {b"p2r.evaluation": b"[1, 2"}
        case _:
            notes = dict(table.schema.metadata)
    if how == "a field of another type":
        place = table.column_names.index("output")
        table = table.set_column(place, "output", pa.array([[1]] * len(table)))
    pq.write_table(table.replace_schema_metadata(notes), written)
    if how == "no rows to read":
        data = bytearray(written.read_bytes())
        data[4:400] = bytes(396)
        written.write_bytes(data)
    with pytest.raises(UsageError, match=r"is damaged|no readable Parquet") as caught:
        main(["--predictions", str(written), "--out", str(tmp_path / "again")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("score", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_score_that_is_none_costs_its_row_alone(score: float, tmp_path: Path) -> None:
    row = {"question": {"problem": "How many?", "solution": "3"}, "model_output": "3"}
    lines = [json.dumps({**row, "accuracy_score": value}) for value in (1, score)]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    found = read_predictions(path)
    assert [one.published_score for one in found.predictions] == [1.0]
    assert found.unreadable == ("line 2: accuracy_score must be a number that a score can be",)


def test_our_own_file_gives_the_same_scores(tmp_path: Path) -> None:
    first = scored(tmp_path, ROWS)
    again = tmp_path / "again"
    again.mkdir()
    written = tmp_path / "out" / "predictions.parquet"
    assert main(["--predictions", str(written), "--out", str(again)]) == EXIT_OK
    second = json.loads((again / "report.json").read_text())
    for name in ("overall", "slices", "mismatch"):
        assert second[name] == first[name]


def test_the_template_decides_what_adherence_means(tmp_path: Path) -> None:
    """Two replies follow <think> <answer>, none follows p2r; the former is also the guess."""

    def followed(*options: str) -> tuple[str, float]:
        report = scored(tmp_path, ROWS, *options)
        return report["template"], report["overall"]["template_adherence"]["score"]

    assert followed() == ("think-answer", 2 / 6)
    assert followed("--template", "p2r") == ("p2r", 0)


def test_an_unknown_template_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scored(tmp_path, ROWS, "--template", "p3r")
    assert (
        "--template: expected one of p2r, think-answer, grounding, got 'p3r'"
        in capsys.readouterr().err
    )


def test_a_score_in_the_file_is_told_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [ROWS[0] | {"accuracy_score": 0.0}, ROWS[1] | {"accuracy_score": 0.0}]
    report = scored(tmp_path, rows)
    assert report["overall"]["tolerant"]["correct"] == 1
    assert [one["problem_id"] for one in report["differs_from_published"]] == ["0"]
    assert "question 0: published 0, ours 1" in capsys.readouterr().out


def test_two_runs_are_compared_question_by_question(tmp_path: Path) -> None:
    other = [row(0, "A", "<answer>B</answer>"), row(2, "C", "<answer>C</answer>"), row(9, "A", "A")]
    other_file = write(tmp_path / "other.jsonl", other)
    found = scored(tmp_path, ROWS[:3], "--compare", str(other_file))["comparison"]
    strict, tolerant = found["strict"], found["tolerant"]
    assert (found["matched"], found["only_in_first"], found["only_in_second"]) == (2, 1, 1)
    assert (strict["only_first_right"], strict["only_second_right"]) == (1, 1)
    assert (tolerant["only_first_right"], tolerant["both_right"]) == (1, 1)
    assert tolerant["difference"]["score"] == 0.5
    assert strict["mcnemar_exact_p"] == 1


def test_a_difference_of_partial_scores_lies_in_its_interval(tmp_path: Path) -> None:
    """Of ten clips nine gain 0.2 (8 instead of 6 for 10) and one loses 0.2: 0.16 on average."""
    ask = {"options": [], "problem_type": "regression"}

    def rows(answers: list[str]) -> list[dict[str, Any]]:
        return [
            row(2 * number, "10", f"<answer>{answer}</answer>", **ask)
            for number, answer in enumerate(answers)
        ]

    other = write(tmp_path / "other.jsonl", rows(["6"] * 9 + ["8"]))
    report = scored(tmp_path, rows(["8"] * 9 + ["6"]), "--compare", str(other))
    difference = report["comparison"]["strict"]["difference"]
    assert difference["score"] == pytest.approx(0.16)
    assert -0.2 <= difference["low"] < 0.16 < difference["high"] <= 0.35


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("10", "10", 1.0),
        ("10", "9.6", 1.0),
        ("10", "9.5", 0.9),
        ("10", "8", 0.6),
        ("10", "4", 0.0),
        ("-10", "-8", 0.6),
        ("0", "0", 1.0),
        ("0", "0.1", 0.0),
    ],
)
def test_mean_relative_accuracy_counts_bounds_below(
    gold: str, answer: str, expected: float
) -> None:
    """Bounds 0.5, 0.45, ..., 0.05, exactly: an error of 5 % stays below nine of them."""
    assert mean_relative_accuracy(Decimal(answer), Decimal(gold)) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "empty"), ("not json\n", "holds no answer"), ('{"a": 1}\n', "holds no answer")],
)
def test_a_file_without_answers_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(text)
    with pytest.raises(UsageError, match=told):
        main(["--predictions", str(tmp_path / "answers.jsonl")])


def test_runs_without_a_common_question_are_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [row(7, "A", "A")])
    with pytest.raises(UsageError, match="share no question"):
        scored(tmp_path, ROWS, "--compare", str(other))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "strict", "tolerant", "differing"),
    [
        ("videochat_r1_mmvu", 401, 401, []),
        ("qwen2_5_vl_7b_zeroshot_mmvu", 2, 411, ["101", "344"]),
    ],
)
def test_published_answers_get_their_published_score(
    name: str, strict: int, tolerant: int, differing: list[str], shared_data: Path, tmp_path: Path
) -> None:
    """401/625 as published; 411/625, since the published 409 leaves two tagged answers unread."""
    answers = shared_data / "outputs" / f"{name}.jsonl"
    assert main(["--predictions", str(answers), "--out", str(tmp_path)]) == EXIT_OK
    report = json.loads((tmp_path / "report.json").read_text())
    overall = report["overall"]
    assert (overall["strict"]["correct"], overall["strict"]["n"]) == (strict, 625)
    assert (overall["tolerant"]["correct"], overall["tolerant"]["n"]) == (tolerant, 625)
    assert overall["tolerant"]["score"] == tolerant / 625
    assert [one["problem_id"] for one in report["differs_from_published"]] == differing


def test_half_a_character_costs_no_report(tmp_path: Path) -> None:
    rows = [
        row(0, "A", "<answer>A</answer> \ud800"),
        row(1, "B", "<answer>B</answer>", data_source="cars \udfff"),
    ]
    report = scored(tmp_path, rows)
    assert report["overall"]["strict"]["correct"] == 2
    assert set(report["slices"]["data source"]) >= {"cars \ufffd"}


@pytest.mark.parametrize(
    ("options", "gold", "answers"),
    [
        (["A", "B", "C", "D"], "C", {"C": 1, "A": 0}),
        (["B. dog", "A. cat"], "B", {"B": 1, "dog": 1, "B. dog": 1, "A": 0, "cat": 0}),
        (["c. hen", "a. dog", "b. cow"], "b", {"B": 1, "cow": 1, "dog": 0, "a": 0}),
    ],
)
def test_answers_are_read_under_the_letters_of_the_file(
    options: list[str], gold: str, answers: dict[str, int], tmp_path: Path
) -> None:
    rows = [
        row(number, gold, f"<answer>{answer}</answer>", options=options)
        for number, answer in enumerate(answers)
    ]
    scored(tmp_path, rows)
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [one["strict_score"] for one in table] == list(answers.values())


@pytest.mark.parametrize("gold", [{"start": 3}, ["a cat", "a tomcat"], float("inf")])
def test_a_gold_answer_that_is_no_text_and_no_number_costs_its_row(
    gold: object, tmp_path: Path
) -> None:
    bad = row(1, "x", "<answer>x</answer>", options=[], problem_type="free-form")
    rows = [row(0, "A", "<answer>A</answer>"), bad | {"ground_truth": gold}]
    found = read_predictions(write(tmp_path / "answers.jsonl", rows))
    assert len(found.predictions) == 1
    assert "ground_truth must be a text or a number" in found.unreadable[0]
