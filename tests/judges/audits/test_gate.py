"""The gate stops a judge that became worse, and nothing that chance or missing rows explain."""

from pathlib import Path
from typing import Any

import pytest
from helpers.small_audits import Row, add_verdicts, rows_of, small_audit, verdicts_of

from cli.config import UsageError
from judges.audits.gate import GateConfig, gate

pytestmark = pytest.mark.heavy

ROWS = [*rows_of(30, "yes", "s"), *rows_of(30, "no", "i")]
RIGHT = "y" * 30 + "n" * 30


def check(folder: Path, **options: Any) -> int:
    values = {"audit": folder / "audit", "baseline": folder / "base.json", "resamples": 400}
    return gate(GateConfig(**(values | options)))


def changed(folder: Path, words: str, rows: list[Row] | None = None, **options: Any) -> int:
    """The gate's answer where the baseline was always right and the judge now says `words`."""
    rows = ROWS if rows is None else rows
    right = "".join("y" if row.people.get("ada") == "s" else "n" for row in rows)
    small_audit(folder / "audit", rows, verdicts=verdicts_of(right))
    assert check(folder, write_baseline=True) == 0
    add_verdicts(folder / "audit", verdicts_of(words, prompt_id="prompt-2"))
    return check(folder, **options)


def test_the_same_verdicts_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert changed(tmp_path, RIGHT) == 0
    told = capsys.readouterr().out
    assert "prompt-1" in told
    assert "prompt-2" in told
    assert "passed" in told


def test_a_clear_fall_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert changed(tmp_path, "n" * 12 + RIGHT[12:]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_fall_that_chance_explains_passes_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Three rows worse and none better: a fair coin does that one time in eight.
    assert changed(tmp_path, "nnn" + RIGHT[3:]) == 0
    assert "points could still be there" in capsys.readouterr().out


def test_a_judge_that_became_better_passes(tmp_path: Path) -> None:
    small_audit(tmp_path / "audit", ROWS, verdicts=verdicts_of("n" * 12 + RIGHT[12:]))
    assert check(tmp_path, write_baseline=True) == 0
    add_verdicts(tmp_path / "audit", verdicts_of(RIGHT))
    assert check(tmp_path) == 0


def test_replies_that_cannot_be_read_any_more_are_a_fall(tmp_path: Path) -> None:
    assert changed(tmp_path, "u" * 15 + RIGHT[15:]) == 1


def test_rows_of_one_video_are_one_witness(tmp_path: Path) -> None:
    """As independent rows eight falls and no gain would fail (p 0.004)."""
    rows = [
        *rows_of(8, "yes", "s", video="clips/one.mp4"),
        *ROWS[8:],
    ]
    assert changed(tmp_path, "n" * 8 + RIGHT[8:], rows) == 0


def test_alpha_decides(tmp_path: Path) -> None:
    assert changed(tmp_path, "n" * 8 + RIGHT[8:], alpha=0.05) == 1
    assert check(tmp_path, alpha=0.001) == 0


def test_rows_that_people_did_not_decide_are_no_evidence(tmp_path: Path) -> None:
    rows = [*rows_of(12, "yes", ""), *ROWS[12:]]
    small_audit(tmp_path / "audit", rows, verdicts=verdicts_of(RIGHT))
    assert check(tmp_path, write_baseline=True) == 0
    add_verdicts(tmp_path / "audit", verdicts_of("n" * 12 + RIGHT[12:]))
    assert check(tmp_path) == 0


def test_a_judge_that_was_asked_about_fewer_rows_cannot_pass(tmp_path: Path) -> None:
    small_audit(tmp_path / "audit", ROWS, verdicts=verdicts_of(RIGHT))
    assert check(tmp_path, write_baseline=True) == 0
    add_verdicts(tmp_path / "audit", verdicts_of("y" * 20, judge="claude:two"))
    with pytest.raises(UsageError, match="has not judged 40 of the 60 labelled rows"):
        check(tmp_path, judge="claude:two")


def test_another_model_is_compared_by_name(tmp_path: Path) -> None:
    words = [*verdicts_of(RIGHT), *verdicts_of("n" * 60, judge="claude:two")]
    small_audit(tmp_path / "audit", ROWS, verdicts=words)
    assert check(tmp_path, write_baseline=True, judge="claude:one") == 0
    assert check(tmp_path, judge="claude:two") == 1
    assert check(tmp_path, judge="source") == 0
    with pytest.raises(UsageError, match="no --judge fits 2 of the judges"):
        check(tmp_path)


def test_without_labels_there_is_nothing_to_hold_against(tmp_path: Path) -> None:
    small_audit(tmp_path / "audit", rows_of(3, "yes", ""), verdicts=verdicts_of("yyy"))
    assert check(tmp_path, write_baseline=True) == 0
    with pytest.raises(UsageError, match="none of the 3 rows of the baseline has a label"):
        check(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("{", "is no baseline"),
        ('{"format": "p2r-judge-baseline-1", "judge": "x"}', "is no baseline"),
        ('{"format": "another", "judge": "x", "variant": "", "prompt_ids": [],'
         ' "verdicts": {"a": "yes"}}', "format"),
        ('{"judge": "x", "variant": "", "prompt_ids": [], "verdicts": {"a": "maybe"}}', "verdicts"),
        ('{"judge": "x", "variant": "", "prompt_ids": [], "verdicts": {}}', "verdicts"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_baseline_is_refused(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    small_audit(tmp_path / "audit", rows_of(3, "yes", "s"), verdicts=verdicts_of("yyy"))
    if content is not None:
        (tmp_path / "base.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        check(tmp_path)
