"""Think-answer consistency is audited with the same tools as the sufficiency judge."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_requests import paid_requests
from helpers.folders import TESTS
from servers.model_server import TEST_KEY, RunningServer

from cli.config import EXIT_OK, EXIT_USAGE, UsageError
from judges.audit import main
from judges.audits.store import AuditStore
from schemas.runs import start_run

pytestmark = pytest.mark.heavy

OPTIONS = ["A. apple", "B. banana", "C. cherry"]
LABELS = TESTS / "judges" / "consistency_labels.jsonl"
CLAUDE = "claude:claude-haiku-5-5"


def write_answers(path: Path, concluded: str, answered: str) -> Path:
    """One row per letter pair; `-` concludes nothing, `?` answers nothing."""
    rows = []
    for number, (letter, answer) in enumerate(zip(concluded, answered, strict=True)):
        think = "Hard to say." if letter == "-" else f"Therefore, the answer is {letter}."
        question = {
            "problem_id": number,
            "problem": f"Which fruit is in clip {number}?",
            "options": OPTIONS,
            "problem_type": "multiple choice",
            "video": f"clips/{number}.mp4",
        }
        output = f"<think>{think}</think><answer>{answer}</answer>"
        rows.append(json.dumps({"question": question, "model_output": output}))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    answers = write_answers(tmp_path / "answers.jsonl", "ABCA-B", "ABBA?A")
    folder = tmp_path / "audit"
    assert sample(folder, answers) == EXIT_OK
    return folder


def sample(folder: Path, answers: Path, *extra: str) -> int:
    return main(
        ["sample", str(folder), "--kind", "think-answer", "--predictions", str(answers), *extra]
    )


def verdicts(folder: Path) -> Counter[tuple[str, str, str]]:
    with AuditStore.open(folder, start_run("test", {})) as store:
        return Counter((one.judge, one.verdict, one.unscored_reason) for one in store.verdicts())


def test_answers_are_drawn_with_the_rules_verdict(audit: Path) -> None:
    with AuditStore.open(audit, start_run("test", {})) as store:
        items = sorted(store.items(), key=lambda item: item.question.row)
        source = store.source
    assert [item.source_verdict for item in items] == ["yes", "yes", "no", "yes", "no"]
    assert [item.question.solution for item in items] == ["A", "B", "B", "A", "A"]
    assert items[2].observation == "Therefore, the answer is C."
    assert (source["kind"], source["not_judged"], source["population"]) == ("think-answer", 1, 5)


def test_rules_and_a_model_are_judges_of_one_report(
    audit: Path, model_server: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", model_server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", TEST_KEY)
    model_server.control(
        replies=[
            {"contains": "the answer is A", "reply": "<extraction>A</extraction>"},
            {"contains": "clip 1?", "reply": "<extraction>No</extraction>"},
            {"contains": "reasoning", "reply": "hm <extraction>C</extraction>"},
        ]
    )
    assert main(["run", str(audit), "--judge", "rule", CLAUDE]) == EXIT_OK
    assert verdicts(audit) == {
        ("rule", "yes", ""): 3,
        ("rule", "no", ""): 2,
        (CLAUDE, "yes", ""): 2,
        (CLAUDE, "no", ""): 2,
        (CLAUDE, "unscored", "no_conclusion"): 1,
    }
    asked = paid_requests(model_server)
    assert len(asked) == 5, "a reply that says No is read, not asked again"
    assert all("Correct Answer" not in record["text"] for record in asked)

    labels = tmp_path / "labels.csv"
    assert main(["label", str(audit), "--export", str(labels)]) == EXIT_OK
    with labels.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["label"] = "c" if line["correct_answer"][0] == line["observation"][-2] else "i"
    with labels.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert main(["label", str(audit), "--import", str(labels), "--annotator", "ann"]) == EXIT_OK

    assert main(["report", str(audit), "--resamples", "200"]) == EXIT_OK
    report = json.loads((audit / "report.json").read_text())
    assert report["kind"] == "think-answer"
    assert report["rows"]["annotators"][0]["labels"] == {"consistent": 3, "inconsistent": 2}
    agreement = {one["name"]: one["against_people"]["agreement"] for one in report["judges"]}
    assert agreement["rule (as in the data)"]["value"] == 1  # asked again, it says the same
    page = (audit / "report.html").read_text()
    assert "Given answer" in page
    assert "called a mismatch" in page
    assert "insufficient" not in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--judge", "rule", "--probes"], "--probes do not exist"),
        (
            ["run", "--judge", "rule", "--variants", "commit-first"],
            "of the kind think-answer",
        ),
        (["run", "--judge", "rule", "--permutations", "1"], "do not exist"),
    ],
)
def test_what_belongs_to_the_other_kind_is_refused(
    audit: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = words
    with pytest.raises(UsageError, match=told):
        main([command, str(audit), *options])


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("", "is empty"),
        ('{"question": {}}\n', "no question object or no model_output"),
        ('{"question": {"problem": "q"}, "model_output": "x"}\n', "not multiple choice"),
    ],
)
def test_a_file_without_reasonings_is_refused(answers: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(answers, encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        sample(tmp_path / "audit", tmp_path / "answers.jsonl")
    assert not (tmp_path / "audit").exists()


def test_the_judge_of_observations_has_no_rules(tmp_path: Path) -> None:
    from helpers.small_audits import rows_of, small_audit

    small_audit(tmp_path / "audit", rows_of(3, "yes", "s"), verdicts={})
    with pytest.raises(UsageError, match="reads conclusions of reasonings"):
        main(["run", str(tmp_path / "audit"), "--judge", "rule"])


@pytest.mark.data
@pytest.mark.slow
def test_the_published_answers_are_audited_against_labels_by_eye(
    shared_data: Path, tmp_path: Path
) -> None:
    """The figures of the extractor on VideoChat-R1's answers to MMVU."""
    answers = shared_data / "outputs" / "videochat_r1_mmvu.jsonl"
    folder = tmp_path / "audit"
    assert sample(folder, answers, "--size", "700", "--max-per-video", "700") == EXIT_OK
    labelled = {row["problem_id"]: row for row in map(json.loads, LABELS.open())}
    lines: list[dict[str, Any]] = []
    with AuditStore.open(folder, start_run("test", {})) as store:
        for item in store.items():
            found = labelled.get(int(item.question.problem_id))
            if found is not None:
                is_same = found["letter"] == item.question.solution
                word = "consistent" if is_same else "inconsistent"
                label = "unsure" if found["letter"] is None else word
                lines.append({"item_id": item.item_id, "label": label, "reason": found["reason"]})
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert main(["label", str(folder), "--import", str(path), "--annotator", "eye"]) == EXIT_OK
    assert main(["report", str(folder), "--resamples", "200"]) == EXIT_OK
    report = json.loads((folder / "report.json").read_text())
    source = report["judges"][0]["against_people"]
    assert (source["num_rows"], source["rows"]["yes_no"], source["rows"]["no_yes"]) == (44, 0, 2)
    assert source["agreement"]["value"] == pytest.approx(0.984, abs=0.001)
    consequences = report["consequences"]
    assert (consequences["kept"]["population"], consequences["rejected"]["population"]) == (250, 13)
    assert 1 - consequences["prevalence"]["naive"] == pytest.approx(13 / 263)


def test_kinds_are_named_on_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["sample", str(tmp_path / "audit"), "--kind", "thinking"])
    assert exit_.value.code == EXIT_USAGE
    assert "think-answer" in capsys.readouterr().err
