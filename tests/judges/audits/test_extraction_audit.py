"""What an evaluation read from replies is audited with the same tools as the sufficiency judge."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.chat_requests import paid_requests
from helpers.evaluations import OPTIONS, evaluate
from servers.model_server import RunningServer, running_server

from cli.config import EXIT_OK, UsageError
from judges.audit import main
from judges.audits.label.queue import LabelBook
from judges.audits.label.views import card_html
from judges.audits.store import AuditStore
from schemas.runs import start_run

pytestmark = pytest.mark.heavy

# Problem type, gold, the model's reply, what the extractor says of it, and what people say: an
# answer, `none` or `unsure`. The extractor is asked where rules read nothing: from row 2 on.
ROWS = [
    ("multiple choice", "A", "<think>r</think><answer>A</answer>", "", "A"),
    ("multiple choice", "C", "Long thought. The answer is B.", "", "B"),
    ("multiple choice", "A", "What I see is the colour of the sea.", "B", "blue"),
    ("multiple choice", "A", "I cannot tell at all.", "No answer", "none"),
    ("multiple choice", "A", "Well. It might be anything.", "C", "none"),
    ("multiple choice", "A", "It is that of fresh grass.", "A", "C"),
    ("numerical", "3", "As many as a spider has legs.", "8.00", "8"),
    ("temporal grounding", "1 to 2", "From her coming in until she sits.", "soon", "unsure"),
    ("free-form", "a ball", "<think>It was round and red.", "a red ball", "red ball"),
    ("multiple choice", "A", "", "", ""),
]
LABELLED = {number: row[4] for number, row in enumerate(ROWS) if row[4]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    replies = [
        {
            "contains": ["<reply>", text.removeprefix("<think>")],
            "reply": f"<extraction>{said}</extraction>",
        }
        for _, _, text, said, _ in ROWS
        if said
    ]
    path = tmp_path / "replies.jsonl"
    path.write_text("".join(json.dumps(rule) + "\n" for rule in replies))
    with running_server(tmp_path / "requests.jsonl", replies=path) as running:
        yield running


@pytest.fixture
def evaluation(server: RunningServer, tmp_path: Path) -> Path:
    """The predictions of an evaluation with an extractor."""
    answers = write_answers(tmp_path / "answers.jsonl")
    out = tmp_path / "scores"
    extractor = f"openai:extractor@{server.openai_url}"
    options = ["--predictions", str(answers), "--out", str(out), "--answer-extractor", extractor]
    assert evaluate(*options) == EXIT_OK
    return out / "predictions.parquet"


@pytest.fixture
def audit(evaluation: Path, tmp_path: Path) -> Path:
    assert sample(tmp_path / "audit", evaluation) == EXIT_OK
    return tmp_path / "audit"


def write_answers(path: Path) -> Path:
    rows = []
    for number, (kind, gold, output, _, _) in enumerate(ROWS):
        question: dict[str, Any] = {
            "problem_id": str(number),
            "problem": f"What is to be seen in clip {number}?",
            "problem_type": kind,
            "video": f"clips/{number}.mp4",
        }
        if kind == "multiple choice":
            question["options"] = OPTIONS
        rows.append({"question": question, "ground_truth": gold, "model_output": output})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def sample(folder: Path, predictions: Path, *extra: str) -> int:
    kind = ["--kind", "answer-extraction", "--predictions", str(predictions)]
    return main(["sample", str(folder), *kind, "--max-per-video", "9", *extra])


def opened(folder: Path) -> AuditStore:
    return AuditStore.open(folder, start_run("test", {}))


def label_by_file(audit: Path, labels: dict[int, str], annotator: str = "ann") -> None:
    """Labels as people write them into an exported file: the answer itself, or a word."""
    path = audit.parent / f"{annotator}.csv"
    assert main(["label", str(audit), "--export", str(path), "--annotator", annotator]) == EXIT_OK
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(line["correct_answer"] == "" for line in lines)
    for line in lines:
        line["label"] = labels.get(int(line["media"].split("/")[1].split(".")[0]), "")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert main(["label", str(audit), "--import", str(path), "--annotator", annotator]) == EXIT_OK


def report(audit: Path) -> dict[str, Any]:
    assert main(["report", str(audit), "--resamples", "200"]) == EXIT_OK
    found: dict[str, Any] = json.loads((audit / "report.json").read_text())
    return found


def counts(reader: dict[str, Any]) -> tuple[int, ...]:
    names = ("same_answer", "other_answer", "missed_answer", "invented_answer", "both_none")
    return tuple(reader[name] for name in names)


def test_replies_are_drawn_with_what_rules_and_extractor_read(audit: Path) -> None:
    with opened(audit) as store:
        items = sorted(store.items(), key=lambda item: item.question.row)
        said = {
            (one.judge, one.item_id): (one.verdict, one.reply or one.unscored_reason)
            for one in store.verdicts()
        }
        source = store.source
    assert [item.source_verdict for item in items] == [
        "yes", "yes", "yes", "no", "yes", "yes", "yes", "unscored", "yes",
    ]  # fmt: skip
    assert (source["kind"], source["not_judged"]) == ("answer-extraction", 1)
    (extractor,) = {item.source_judge for item in items}
    assert extractor.startswith("rules, then openai:extractor@")
    ids = [item.item_id for item in items]
    assert [said[extractor, name] for name in ids[1:4]] == [
        ("yes", "B"),
        ("yes", "B"),
        ("no", ""),
    ]
    assert said[extractor, ids[7]] == ("unscored", "off_menu")
    assert [said["tolerant rules", name][0] for name in ids] == ["yes"] * 2 + ["no"] * 7
    assert [said["strict rules", name][0] for name in ids] == ["yes"] + ["no"] * 8
    assert {item.stratum.rpartition("| ")[2] for item in items} == {
        "read by rules",
        "extractor asked",
    }


def test_readers_are_compared_with_the_answers_that_people_write(audit: Path) -> None:
    """Worked out from ROWS: of 8 replies with a label people can decide 6 state an answer."""
    label_by_file(audit, LABELLED)
    content = report(audit)
    extractor, strict, tolerant = content["readers"]
    assert extractor["name"].endswith("(as in the data)")
    # Right: rows 0, 1, 2, 6, 8; another answer: 5; invented: 4; none as people: 3; unscored: 7.
    assert counts(extractor) == (5, 1, 0, 1, 1)
    assert (extractor["num_rows"], extractor["num_unscored"]) == (8, 1)
    assert extractor["unscored_reasons"] == {"off_menu": 1}
    assert extractor["agreement"]["value"] == pytest.approx(6 / 8)
    assert extractor["found"]["value"] == pytest.approx(5 / 6)
    assert extractor["left_alone"]["value"] == pytest.approx(1 / 2)
    assert extractor["precision"]["value"] == pytest.approx(5 / 7)
    assert (tolerant["name"], counts(tolerant)) == (
        "tolerant rules (as in the data)",
        (2, 0, 4, 0, 2),
    )
    assert counts(strict) == (1, 0, 5, 0, 2)
    pair = content["pairs"][1]
    assert (pair["first"], pair["second"]) == (extractor["name"], tolerant["name"])
    assert (pair["comparison"]["only_first_right"], pair["comparison"]["only_second_right"]) == (
        3,
        1,
    )
    assert pair["found"]["difference"]["value"] == pytest.approx(5 / 6 - 2 / 6)
    assert pair["left_alone"]["difference"]["value"] == pytest.approx(1 / 2 - 1)
    assert content["rows"]["num_reference"] == 8
    kinds = {mark["kind"] for row in content["disagreements"] for mark in row["kinds"]}
    assert kinds == {"other-answer", "missed-answer", "invented-answer", "unscored", "unsure"}
    page = (audit / "report.html").read_text()
    assert "What I see is the colour of the sea." in page
    assert "Correct answer" not in page


def test_another_extractor_is_asked_about_the_same_replies(
    audit: Path, server: RunningServer
) -> None:
    """All of them, those that rules read too; it never sees the gold answer."""
    label_by_file(audit, LABELLED)
    other = f"openai:other@{server.openai_url}"
    rules = {"contains": ["<reply>", "answer is B"], "reply": "<extraction>B</extraction>"}
    server.control(
        replies=[rules, {"contains": ["<reply>"], "reply": "<extraction>No answer</extraction>"}]
    )
    before = len(paid_requests(server, "/v1/chat/completions"))
    assert main(["run", str(audit), "--judge", other, "--repeats", "2"]) == EXIT_OK
    asked = paid_requests(server, "/v1/chat/completions")[before:]
    assert len(asked) == 2 * 9
    content = report(audit)
    found = content["readers"][3]
    assert found["name"] == other
    assert counts(found) == (1, 0, 5, 0, 2)
    assert found["calls_per_reply"] == 1
    (again,) = content["repeated"]
    assert (again["num_repeats"], again["num_rows"], again["unchanged"]["value"]) == (2, 9, 1)


def test_the_page_shows_no_answer_but_the_reply_and_takes_what_people_write(audit: Path) -> None:
    with opened(audit) as store:
        book = LabelBook(store)
        place = book.place("ann")
        assert place.item is not None
        card = card_html(book, place)
        assert "Reply" in card
        assert "gold" not in card
        choice = next(item for item in book.items if item.question.row == 2)
        number = next(item for item in book.items if item.question.row == 6)
        for text in ("", "Z", "A or B"):
            with pytest.raises(ValueError, match="needs the answer that the reply states, the let"):
                book.put("ann", choice.item_id, "stated", text)
        with pytest.raises(ValueError, match="a number, not 'many'"):
            book.put("ann", number.item_id, "stated", "many")
        assert book.counts() == {}
        book.put("ann", choice.item_id, "stated", "b")
        book.put("ann", number.item_id, "none", "")
        found = {one.item_id: (one.label, one.reason) for one in store.labels()}
    assert found == {choice.item_id: ("stated", "b"), number.item_id: ("none", "")}
    content = report(audit)
    assert counts(content["readers"][0]) == (1, 0, 0, 1, 0)


def test_people_differ_by_their_answers(audit: Path) -> None:
    """Two of three decide; a letter and the option's text are one answer; 8 and 9 are a tie."""
    label_by_file(audit, {0: "A", 2: "B", 6: "8", 3: "none"}, "ada")
    label_by_file(audit, {0: "red", 2: "C", 6: "9", 3: "A"}, "ben")
    label_by_file(audit, {2: "blue", 3: "none"}, "cyd")
    content = report(audit)
    assert (content["rows"]["num_reference"], content["rows"]["num_tied"]) == (3, 1)
    assert counts(content["readers"][0]) == (2, 0, 0, 0, 1)
    pairs = {(one["first"], one["second"]): one for one in content["people"]}
    assert pairs["ada", "ben"]["num_rows"] == 4
    # Three of the seven rows with an answer are labelled, so that each stands for 7 / 3 of 8.
    assert pairs["ada", "ben"]["agreement"]["value"] == pytest.approx(7 / 3 / 8)
    assert pairs["ada", "cyd"]["agreement"]["value"] == 1


def test_a_report_without_labels_says_that_nothing_is_known(
    audit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = report(audit)
    assert content["readers"][0]["agreement"]["value"] is None
    assert "No reply is labelled yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({0: "Z"}, "needs the answer that the reply states, the letter of one of its options"),
        ({6: "many"}, "a number, not 'many'"),
        ({7: "soon"}, "times in seconds"),
    ],
)
def test_a_label_that_is_no_answer_is_refused_and_nothing_is_stored(
    audit: Path, labels: dict[int, str], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        label_by_file(audit, {1: "B"} | labels)
    with opened(audit) as store:
        assert store.labels() == []


def test_labels_come_back_as_they_were_written(audit: Path, tmp_path: Path) -> None:
    """Answers that look like formulas, words in the reason's place, and a label that says two."""
    with opened(audit) as store:
        ids = {item.question.row: item.item_id for item in store.items()}
    lines = [
        {"item_id": ids[6], "label": "-3"},
        {"item_id": ids[0], "label": "S", "reason": "A"},
        {"item_id": ids[8], "label": "stated", "reason": "none"},
        {"item_id": ids[3], "label": "None"},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported = ["label", str(audit), "--annotator", "ann", "--import"]
    assert main([*imported, str(path)]) == EXIT_OK
    table = tmp_path / "back.csv"
    assert main(["label", str(audit), "--export", str(table)]) == EXIT_OK
    assert main([*imported, str(table)]) == EXIT_OK
    with opened(audit) as store:
        found = {one.item_id: (one.label, one.reason) for one in store.labels(current_only=False)}
    assert found == {
        ids[6]: ("stated", "-3"),
        ids[0]: ("stated", "A"),
        ids[8]: ("stated", "none"),
        ids[3]: ("none", ""),
    }
    for line, told in (
        ({"item_id": ids[1], "label": "stated"}, "needs the answer that the reply states"),
        ({"item_id": ids[1], "label": "B", "reason": "it says so"}, "expected one of stated, none"),
    ):
        path.write_text(json.dumps(line) + "\n")
        with pytest.raises(UsageError, match=told):
            main([*imported, str(path)])


def test_an_evaluation_without_an_extractor_is_refused(tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers.jsonl")
    assert evaluate("--predictions", str(answers), "--out", str(tmp_path / "plain")) == EXIT_OK
    predictions = tmp_path / "plain" / "predictions.parquet"
    with pytest.raises(UsageError, match=r"asked no extractor of answers; give the predictions"):
        sample(tmp_path / "audit", predictions)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        sample(tmp_path / "audit", answers)
    with pytest.raises(UsageError, match="cannot be read"):
        sample(tmp_path / "audit", tmp_path / "gone.parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        sample(tmp_path / "audit", tmp_path)
    with pytest.raises(UsageError, match="give --predictions FILE, and neither --build"):
        sample(tmp_path / "audit", predictions, "--build", str(tmp_path))
    assert not (tmp_path / "audit").exists()


def test_predictions_of_an_earlier_version_say_what_to_do(evaluation: Path, tmp_path: Path) -> None:
    table = pq.read_table(evaluation)
    names = [name for name in table.column_names if name != "extracted_by"]
    pq.write_table(table.select(names), tmp_path / "old.parquet")
    with pytest.raises(UsageError, match=r"no column extracted_by; .*written anew by the same"):
        sample(tmp_path / "audit", tmp_path / "old.parquet")


def test_an_empty_table_is_refused(evaluation: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(evaluation).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(UsageError, match="holds no reply to audit"):
        sample(tmp_path / "audit", tmp_path / "empty.parquet")


def test_replies_of_two_extractors_in_one_table_are_one_reader(
    evaluation: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(evaluation).to_pylist()
    for row in rows[3:]:
        if row["extracted_by"] != "rules":
            row["extracted_by"] = "claude:another"
    table = pa.Table.from_pylist(rows, schema=pq.read_schema(evaluation))
    pq.write_table(table, tmp_path / "mixed.parquet")
    assert sample(tmp_path / "audit", tmp_path / "mixed.parquet") == EXIT_OK
    with opened(tmp_path / "audit") as store:
        (judge,) = {item.source_judge for item in store.items()}
    assert judge.startswith("rules, then claude:another + openai:extractor@")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--judge", "rule"], "reads conclusions of reasonings; an audit of replies takes"),
        (["run", "--judge", "oracle:1", "--probes"], "do not exist for audits of the kind answer"),
        (
            ["run", "--judge", "oracle:1", "--variants", "answer"],
            "of the kind answer-extr",
        ),
        (["gate", "--baseline", "b.json", "--write-baseline"], "gate compares verdicts"),
    ],
)
def test_what_belongs_to_the_other_kinds_is_refused(
    audit: Path, words: list[str], told: str
) -> None:
    command, *options = words
    with pytest.raises(UsageError, match=told):
        main([command, str(audit), *options])
