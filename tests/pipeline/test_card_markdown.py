"""Text from outside on the data card: it breaks no table and runs nothing."""

import json
from pathlib import Path

import pytest
from helpers.built_ledger import add_attempt, empty_ledger, question
from helpers.cards import card_of
from markdown_it import MarkdownIt

from cli.markdown_page import as_json, cell
from schemas.samples import Reason, Rejection, Step

HOSTILE = (
    "a|b\n| c | d |\n\n# Owned <script>alert(1)</script> `x` [a](http://e/) ![i](http://e/x.png) "
    "{{ 7 * 7 }} {% raw %} $x$ *y* __z__ <!-- \\| ---"
)


def test_text_from_outside_breaks_no_table_and_runs_nothing(tmp_path: Path) -> None:
    with empty_ledger(tmp_path, judge=f"openai:{HOSTILE}```") as ledger:
        asked = question(0, data_source=HOSTILE, problem_id=HOSTILE)
        lost = question(1, data_source=HOSTILE, problem_id=HOSTILE)
        ledger.add_questions([asked, lost])
        add_attempt(ledger, asked, generator=HOSTILE, prompt_id=HOSTILE, frame_spec=HOSTILE)
        ledger.add_rejection(
            lost.question_id, Rejection(Step.GENERATE, Reason.BAD_REQUEST, HOSTILE)
        )
        card = card_of(ledger, tmp_path)
    # The hostile card has the structure of a plain one: a Markdown parser sees the same tables, and
    # no HTML, no link, no heading and no picture more.
    assert _structure(card) == _structure(_plain_card(tmp_path / "plain"))
    assert card.count("{% raw %}") > 5


def _structure(card: str) -> list[str]:
    """Block and inline element types of the card, plain runs of text left out."""
    body = card.split("---\n", 2)[2]
    kinds = []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or () if child.type != "text"]
    assert "html_block" not in kinds
    assert "html_inline" not in kinds
    return kinds


def _plain_card(folder: Path) -> str:
    folder.mkdir()
    with empty_ledger(folder) as ledger:
        ledger.add_questions([question(0, data_source="a"), question(1, data_source="a")])
        add_attempt(ledger, question(0, data_source="a"))
        ledger.add_rejection(
            question(1).question_id, Rejection(Step.GENERATE, Reason.BAD_REQUEST, "no")
        )
        return card_of(ledger, folder)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("street/train_2", "street/train_2"),
        ("_lead and trail_", r"\_lead and trail\_"),
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("a\n\tb", "a b"),
        ("<b>&amp;", r"&lt;b\>&amp;amp;"),
        ("  ", "–"),
        (None, "–"),
        (0, "0"),
    ],
)
def test_a_cell_is_one_line_of_inert_text(text: object, escaped: str) -> None:
    assert cell(text) == escaped


def test_a_card_is_no_binary_file() -> None:
    """Control characters of names make one of it, and marks of direction turn its lines round."""
    names = {"model": "m\x00\x1b[31m\x7f\x9b2J", "ü": "\u202etxt\u2066", "kept": "äß—`\n"}
    text = as_json(names)
    assert json.loads(text) == names
    for acting in "\x00\x1b\x7f\x9b\u202e\u2066`":
        assert acting not in text
        assert acting not in cell(f"a{acting}b") or acting == "`"
    assert "äß—" in text
    assert cell("a\x00b\u202e") == "a\\\\x00b\\\\u202e"
