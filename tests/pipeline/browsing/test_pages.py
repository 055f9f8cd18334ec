"""The pages of a build: every row with its end, texts as texts, calls, a search over all."""

import re
from pathlib import Path

import duckdb
import pytest
from helpers.browsed_build import (
    BAD_CODEC_ROW,
    HOSTILE,
    HOSTILE_ROW,
    READ_ROW,
    articles,
    browse,
    data_of,
    make_build,
    targets,
)
from helpers.built_ledger import question
from helpers.html_tags import Tags

from pipeline.browsing import pages as pages_module

NUM_ROWS = 32  # thirty questions, an unreadable row, a hostile one


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("browsed"))


@pytest.fixture(scope="module")
def pages(out: Path) -> dict[str, str]:
    return browse(out, "--rows-per-page", "15")


def article_of(pages: dict[str, str], row: int) -> str:
    (found,) = (one for one in articles(pages) if f"<b>Row {row}</b>" in one)
    return found


def test_every_row_is_shown_once_with_its_end_in_the_order_of_the_file(
    pages: dict[str, str],
) -> None:
    assert sorted(pages) == ["index.html", *(f"rows-0000{n}.html" for n in (1, 2, 3))]
    shown = articles(pages)
    rows = [int(found) for one in shown for found in re.findall(r"<b>Row (\d+)</b>", one)]
    assert rows == [*range(31), HOSTILE_ROW]
    ends = {
        row: re.search(r'class="mark \w+">([^<]+)<', one)[1]  # type: ignore[index]
        for row, one in zip(rows, shown, strict=True)
    }
    assert {row: end for row, end in ends.items() if end != "kept"} == {
        5: "media: missing_file",
        7: "verify: low_score",
        9: "filter: insufficient",
        11: "generate: call_failed",
        13: "verify: malformed_trace",
        15: "filter: answer_leak",
        30: "read: invalid_question",
    }


def test_a_row_shows_each_attempt_its_check_its_verdict_and_what_its_calls_cost(
    pages: dict[str, str],
) -> None:
    article = article_of(pages, 17)
    texts = " ".join(" ".join(Tags("<article " + article).texts).split())
    # Row 17 passes at its second draw: the first fails and is not there, as `add_attempt` wrote it.
    assert "Attempt 1" in texts
    assert "Attempt 2" in texts
    assert texts.index("failed") < texts.index("passed")
    assert texts.count("kept") == 2  # the row, and the second attempt
    assert texts.index("Attempt 2") < texts.index("kept", texts.index("Attempt"))
    assert "sufficient yes" in texts
    assert "&lt;judgement&gt;yes&lt;/judgement&gt;" in article
    assert "3 calls, $0.0200 and 1 of unknown price" in texts
    assert "1,000" in texts
    assert "thing 17 “happens”" in texts


def test_replies_of_judges_and_readers_stand_in_their_order_and_place(
    pages: dict[str, str],
) -> None:
    twice = article_of(pages, HOSTILE_ROW)
    assert twice.index("&lt;judgement&gt;yes") < twice.index("and again")
    read = " ".join(" ".join(Tags("<article " + article_of(pages, READ_ROW)).texts).split())
    without = "1 of 4 correct, 1 without an answer, rate 0.25"
    from_observation = "4 of 4 correct, rate 1.00, 0.25 without the observation"
    assert read.index("Without the video") < read.index(without) < read.index("Trace")
    assert read.index("Trace") < read.index(from_observation)
    assert (read.count(without), read.count(from_observation)) == (1, 1)


def test_every_link_of_a_verdict_leads_to_its_call(pages: dict[str, str]) -> None:
    num_links = 0
    for name, page in pages.items():
        if name != "index.html":
            ids, links = targets(page)
            calls = {link for link in links if link.startswith("call-")}
            assert calls <= ids
            num_links += len(calls)
    with_calls = NUM_ROWS - 4  # 5, 11 and 13 were never answered, 30 never asked
    assert num_links >= with_calls


def test_text_of_others_stays_text_everywhere(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        tags = [tag for tag, _ in Tags(page).tags]
        assert tags.count("script") == (3 if name == "index.html" else 1)
        assert not [1 for tag, values in Tags(page).tags if tag == "img" and "onerror" in values]
    (line,) = (one for one in data_of(pages["index.html"], "lines") if one[1] == HOSTILE_ROW)
    assert line[7].startswith(HOSTILE)
    assert HOSTILE in data_of(pages["index.html"], "names")["source"]


def test_a_clip_is_played_where_browsers_can_and_its_frames_are_shown_in_any_case(
    out: Path, pages: dict[str, str]
) -> None:
    for row, plays in ((0, True), (BAD_CODEC_ROW, False), (HOSTILE_ROW, True)):
        article = article_of(pages, row)
        assert article.count('src="data:image/jpeg') == 4  # --frames uniform:4
        sources = [
            values["src"] for tag, values in Tags(f"<article {article}").tags if tag == "video"
        ]
        assert len(sources) == plays
        for source in sources:
            assert source is not None
            assert (out / "browse" / source).resolve().is_file()
    assert "Not shown: missing_file" in article_of(pages, 5)


def test_the_search_knows_every_row_and_its_page(pages: dict[str, str]) -> None:
    names, lines = (data_of(pages["index.html"], name) for name in ("names", "lines"))
    assert [line[1] for line in lines] == [*range(31), HOSTILE_ROW]
    for line in lines:
        assert f'id="{line[2]}"' in pages[names["pages"][line[0]]]
    by_row = {line[1]: line for line in lines}
    ends = {row: (names["step"][line[3]], names["reason"][line[4]]) for row, line in by_row.items()}
    assert ends[0] == ("kept", "")
    assert ends[9] == ("filter", "insufficient")
    assert names["source"][by_row[3][5]] == "kitchen/train"
    assert names["type"][by_row[3][6]] == "free-form"
    asked = question(3)
    assert by_row[3][7].startswith(f"{asked.problem} {asked.solution}")
    assert by_row[3][7][: by_row[3][8]] == asked.problem


def test_the_search_of_a_large_build_knows_less_of_each_row(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "INDEX_BYTES", 10 * NUM_ROWS)
    found = browse(out, "--no-pictures")
    lines = data_of(found["index.html"], "lines")
    assert {len(line[7]) for line in lines if line[1] != 30} == {10}
    assert "the first 10 characters" in found["index.html"]


def test_pages_have_room_for_so_many_frames_and_say_so(out: Path) -> None:
    found = browse(out, "--max-page-megabytes", "0")
    assert "data:image/jpeg" not in "".join(found.values())
    assert "for want of room (--max-page-megabytes)" in found["rows-00001.html"]
    found = browse(out, "--no-pictures")
    assert "frames were left out (--no-pictures)" in found["rows-00001.html"]


def test_a_limit_takes_the_first_rows_of_the_file_and_old_pages_go(out: Path) -> None:
    found = browse(out, "--limit", "3", "--rows-per-page", "2", "--no-pictures")
    assert sorted(found) == ["index.html", "rows-00001.html", "rows-00002.html"]
    assert len(articles(found)) == 3
    assert f"3 rows of {NUM_ROWS} (--limit)" in found["index.html"]


def test_the_ledger_is_left_as_it_was(out: Path) -> None:
    before = (out / "cot.duckdb").read_bytes()
    browse(out, "--no-pictures")
    assert (out / "cot.duckdb").read_bytes() == before


def test_a_ledger_of_before_text_readers_is_shown_too(out: Path, tmp_path: Path) -> None:
    copy = make_build(tmp_path)
    with duckdb.connect(str(copy / "cot.duckdb")) as connection:
        connection.execute("DROP VIEW blind_marks; DROP TABLE reader_checks")
    assert len(articles(browse(copy, "--no-pictures"))) == NUM_ROWS
