"""The files of a report: its page with every disagreement, its pictures, its words on screen."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from helpers.small_audits import Row, rows_of, small_audit, verdicts_of
from PIL import Image

from cli.config import EXIT_OK, UsageError
from judges.audit import main
from judges.audits.arrays import audit_rows, judge_views
from judges.audits.report.command import ReportConfig, report
from judges.audits.report.disagreements import Card, cards_of
from judges.audits.store import AuditStore
from schemas.questions import MediaRef
from schemas.runs import start_run

pytestmark = pytest.mark.heavy

HOSTILE = "</article><script>alert(1)</script><b onmouseover=alert(2)>bold</b> \x1b[31mred"


def made(audit: Path, **options: Any) -> str:
    config = ReportConfig(
        audit=audit, **({"widths": (), "resamples": 200, "frames": "none"} | options)
    )
    assert report(config) == EXIT_OK
    return (audit / "report.html").read_text(encoding="utf-8")


def cards(audit: Path) -> dict[str, Card]:
    with AuditStore.open(audit, start_run("test", {})) as store:
        rows = audit_rows(store.items(), store.strata(), store.labels())
        verdicts = store.verdicts()
    found = cards_of(rows, judge_views(rows.items, verdicts), verdicts)
    return {card.item.item_id: card for card in found}


def marks(card: Card) -> set[tuple[str, str]]:
    return {(mark.judge, mark.kind) for mark in card.marks}


def test_every_kind_of_disagreement_is_found(tmp_path: Path) -> None:
    people = [
        {"ada": "s"}, {"ada": "i"}, {"ada": "s"}, {"ada": "s", "ben": "i"}, {"ada": "u"}, {},
        {"ada": "s"}, {"ada": "s"},
    ]  # fmt: skip
    small_audit(
        tmp_path,
        [Row("yes", labels) for labels in people],
        verdicts=[
            *verdicts_of("yynyyuyy"),
            *verdicts_of("y.....n.", repeat=1),
            *verdicts_of("yynyyuyn", permutation=2),
            *verdicts_of("ynnnnnny", probe="empty"),
        ],
    )
    found = cards(tmp_path)
    source, one = "oracle:1 (as in the data)", "claude:one"
    assert "item-0" not in found  # everybody agrees; a probe let through is no disagreement
    assert marks(found["item-1"]) == {(source, "false-yes"), (one, "false-yes")}
    assert found["item-1"].others == ()  # a probe that was stopped is not shown
    assert marks(found["item-2"]) == {(one, "false-no"), (one, "judges"), (source, "judges")}
    assert marks(found["item-3"]) == {("", "people")}
    assert marks(found["item-4"]) == {("", "unsure")}
    assert marks(found["item-5"]) == {(one, "unscored")}
    assert marks(found["item-6"]) == {(one, "again")}
    assert marks(found["item-7"]) == {(one, "otherwise")}
    assert [said.how for said in found["item-7"].others] == [
        "options under other letters",
        "probe empty",
    ]


def test_a_row_leads_to_its_calls_where_the_build_was_made_into_pages(tmp_path: Path) -> None:
    build, audit = tmp_path / "the build", tmp_path / "audit"
    build.mkdir()
    small_audit(audit, rows_of(1, "yes", "i"), verdicts=verdicts_of("y"))
    with AuditStore.open(audit, start_run("test", {})) as store:
        facts = json.dumps({**store.source, "ledgers": [str(build / "cot.duckdb")]})
        store.ledger.query("UPDATE audit_facts SET value = ? WHERE name = 'source'", [facts])
    assert "in the build</a>" not in made(audit)
    (build / "browse").mkdir()
    (build / "browse" / "index.html").write_text("<p>")
    (link,) = re.findall(r'href="([^"]*)">its trace and calls in the build', made(audit))
    place, _, choice = link.partition("#")
    assert (audit / unquote(place)).resolve() == build / "browse" / "index.html"
    with AuditStore.open(audit, start_run("test", {})) as store:
        assert choice == f"text={store.items()[0].question.question_id}"


def test_a_judge_that_only_repeats_the_data_is_shown_once_with_its_replies(tmp_path: Path) -> None:
    again = [
        replace(verdict, judge="oracle:1", prompt_id="prompt-0") for verdict in verdicts_of("yn")
    ]
    rows = [Row("yes", {"ada": "i"}), Row("no", {"ada": "s"})]
    small_audit(
        tmp_path,
        rows,
        verdicts=[*again, *(replace(one, judge="oracle:1") for one in verdicts_of("ny", repeat=1))],
    )
    page = made(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in content["judges"]] == ["oracle:1 (as in the data)"]
    assert content["pairs"] == []
    (first,) = re.findall(r'<article[^>]*id="item-0">(.*?)</article>', page, re.DOTALL)
    assert first.count("&lt;judgement&gt;yes&lt;/judgement&gt;") == 1  # no longer "in the build"
    assert "accepted, but people say insufficient (oracle:1 (as in the data))" in first
    assert "another word when asked again (oracle:1 (as in the data))" in first


@pytest.mark.parametrize(
    ("words", "prompt"), [("yy", "prompt-0"), ("y.", "prompt-0"), ("yn", "prompt-1")]
)
def test_a_judge_that_says_anything_new_is_shown_twice(
    words: str, prompt: str, tmp_path: Path
) -> None:
    """Another verdict, a row that it was not asked about, another prompt."""
    again = [replace(verdict, judge="oracle:1", prompt_id=prompt) for verdict in verdicts_of(words)]
    small_audit(tmp_path, [Row("yes", {"ada": "i"}), Row("no", {"ada": "s"})], verdicts=again)
    made(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in content["judges"]] == ["oracle:1 (as in the data)", "oracle:1"]


def test_what_the_makers_of_the_data_got_wrong_comes_first(tmp_path: Path) -> None:
    rows = [Row("no", {"ada": "i"}), *rows_of(1, "yes", "i"), *rows_of(1, "yes", "i", weight=9)]
    small_audit(tmp_path, rows, verdicts=verdicts_of("y.."))
    assert list(cards(tmp_path)) == ["item-2", "item-1", "item-0"]


def test_the_page_shows_question_gold_observation_labels_and_replies(tmp_path: Path) -> None:
    small_audit(tmp_path, rows_of(2, "yes", "i"), verdicts=verdicts_of("yn"))
    page = made(tmp_path)
    (first,) = re.findall(r'<article[^>]*id="item-0">(.*?)</article>', page, re.DOTALL)
    for shown in (
        "How many cups? (0)", "B. two", "Two cups stand there.", "ada says why",
        "&lt;judgement&gt;yes&lt;/judgement&gt;", "prompt-1", "prompt-0",
        "accepted, but people say insufficient (2 judges)",
    ):  # fmt: skip
        assert shown in first, shown


def test_facets_hold_judge_kind_and_slice_together(tmp_path: Path) -> None:
    rows = [Row("yes", {"ada": "i"}), Row("yes", {"ada": "i"}, data_source="garden")]
    small_audit(tmp_path, rows, verdicts=verdicts_of("nn"))
    page = made(tmp_path)
    judges, kinds, slices = (
        dict(re.findall(r'<option value="([^"]+)">([^<]+)</option>', part))
        for part in re.findall(r"<select[^>]*>(.*?)</select>", page, re.DOTALL)
    )
    by_name = {name: value for value, name in judges.items()}
    kitchen = next(value for value, name in slices.items() if name == "data source: kitchen")
    ((facets, _),) = re.findall(r'data-facets="([^"]*)" id="(item-0)"', page)
    source, one = by_name["oracle:1 (as in the data)"], by_name["claude:one"]
    assert f"{source},false-yes,{kitchen}" in facets.split()
    assert f"{one},judges,{kitchen}" in facets.split()
    assert f"{one},false-yes,{kitchen}" not in facets.split()
    assert kinds["false-yes"].endswith("(2)")


def test_hostile_texts_stay_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("yes", {"ada": "i"}, data_source=HOSTILE, problem=HOSTILE, observation=HOSTILE)
    words = [replace(verdict, judge=HOSTILE, reply=HOSTILE) for verdict in verdicts_of("nn")]
    small_audit(tmp_path, [row, row], verdicts=words)
    page = made(tmp_path)
    assert page.count("<script") == 1
    assert page.count("<article") == page.count("</article>") == 2
    assert "<b onmouseover" not in page
    assert "\x1b" not in capsys.readouterr().out
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["judges"][1]["judge"] == HOSTILE


def test_pictures_are_files_and_part_of_the_page(tmp_path: Path) -> None:
    small_audit(
        tmp_path,
        [*rows_of(30, "yes", "s"), *rows_of(25, "no", "i", data_source="garden")],
        verdicts=[*verdicts_of("y" * 30 + "n" * 25), *verdicts_of("n" * 55, probe="empty")],
    )
    page = made(tmp_path)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"judges.png", "data.png", "slices.png", "probes.png"}
    for name in names:
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.width > 600
    assert page.count("data:image/png;base64,") == 4
    assert not re.findall(r'(?:src|href)="(?!data:image/)', page)


@pytest.mark.heavy
def test_frames_are_on_the_page_or_the_reason_why_not(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "media" / "red.png")
    media = [
        (MediaRef(kind="image", path=name),) for name in ("red.png", "missing.png", "../out.png")
    ]
    small_audit(
        tmp_path / "audit",
        [Row("yes", {"ada": "i"}, media=one, video=one[0].path) for one in media],
        media_root=tmp_path / "media",
    )
    page = made(tmp_path / "audit", frames="uniform:4", frame_cache=tmp_path / "cache")
    assert page.count("data:image/jpeg;base64,") == 1
    assert "64x48" in page
    assert len(re.findall(r"Not shown: \w+", page)) == 2
    assert "2 files could not be shown, each says why." in page
    # Where the room for pictures is used up, the rows are there without, and say so.
    page = made(
        tmp_path / "audit", frames="uniform:4", frame_cache=tmp_path / "cache", max_page_megabytes=0
    )
    assert "data:image/jpeg" not in page
    assert page.count("--max-page-megabytes") == 3


def test_a_media_root_that_is_gone_is_said_on_the_page(tmp_path: Path) -> None:
    small_audit(tmp_path / "audit", rows_of(1, "yes", "i"), media_root=tmp_path / "gone")
    assert "give --media-root" in made(tmp_path / "audit", frames="uniform:4")
    with pytest.raises(UsageError, match="is not a folder"):
        made(tmp_path / "audit", frames="uniform:4", media_root=tmp_path / "gone")


def test_the_command_prints_the_report_and_refuses_what_is_no_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_audit(tmp_path / "audit", rows_of(25, "yes", "s"))
    words = ["report", str(tmp_path / "audit"), "--frames", "none", "--widths", "0.2"]
    assert main(words) == EXIT_OK
    told = " ".join(capsys.readouterr().out.split())
    assert "oracle:1 (as in the data) agrees with people on 100.0 % (" in told
    assert "Judges against people" in told
    with pytest.raises(UsageError, match="holds no audit"):
        main(["report", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "audit"), "--frames", "some"])
