"""What the labelling page writes of a row: everything that a person needs, nothing that runs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.html_tags import Tags
from helpers.labelled_audit import HOSTILE, JUDGES_SIDE, make_audit

from judges.audits.label.queue import LabelBook
from judges.audits.label.views import (
    ShownFrame,
    ShownMedium,
    card_html,
    frames_html,
    start_html,
)
from judges.audits.records import shown_choices
from judges.audits.store import AuditStore
from judges.sufficiency import correct_answer_text
from media.frames import EncodedFrames
from media.sampling import FrameSpec
from schemas.questions import ProblemType
from schemas.runs import start_run


@pytest.fixture
def book(tmp_path: Path) -> Iterator[LabelBook]:
    make_audit(tmp_path / "audit", None, num_rows=8)
    with AuditStore.open(tmp_path / "audit", start_run("label", {})) as opened:
        yield LabelBook(opened)


def test_a_row_shows_question_options_answer_and_observation(book: LabelBook) -> None:
    page = Tags(card_html(book, book.place("somebody")))
    text = " ".join(" ".join(page.texts).split())
    for expected in (
        "0 of 8",
        "What happens in scene 0?",
        "A The cup falls",
        "B. The cup stands",
        "In scene 0 a hand puts the cup upright at 0.4 s.",
    ):
        assert expected in text
    marked = [attrs for tag, attrs in page.tags if tag == "li" and attrs.get("class") == "gold"]
    assert len(marked) == 1


def test_texts_of_the_data_set_stay_texts(book: LabelBook) -> None:
    """Bug to catch: a template without escaping."""
    place = book.put("ann", "item-000", "sufficient", HOSTILE)
    page = Tags(card_html(book, replace(place, annotator=HOSTILE, earlier=place.last)))
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.texts.count(HOSTILE) == 1  # the observation, in one piece
    assert any(HOSTILE in text and text != HOSTILE for text in page.texts)  # the question
    begin = Tags(start_html(book, complaint=HOSTILE))
    assert {tag for tag, _ in begin.tags} == {"section", "h1", "p", "a"}
    assert HOSTILE in begin.texts


def test_names_and_complaints_of_media_stay_texts() -> None:
    frame = ShownFrame(time=HOSTILE, seek=0.5, base64="eA==")
    media = (
        ShownMedium("video", HOSTILE, facts=HOSTILE, frames=(frame,)),
        ShownMedium("video", HOSTILE, complaint=HOSTILE),
    )
    page = Tags(frames_html(3, media))
    assert "script" not in [tag for tag, _ in page.tags]
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == [
        "data:image/jpeg;base64,eA=="
    ]
    assert [attrs["src"] for tag, attrs in page.tags if tag == "video"] == ["rows/3/media/0"]
    assert sum(HOSTILE in text for text in page.texts) == 5


def test_a_row_tells_nothing_that_the_judge_said(book: LabelBook) -> None:
    for item in book.items:
        html = card_html(book, book.put("ann", item.item_id, "unsure", ""))
        assert "verdict" not in html
        assert not [word for word in JUDGES_SIDE if word in html]


def test_progress_and_the_label_given_last_are_shown(book: LabelBook) -> None:
    first = Tags(card_html(book, book.place("ann")))
    assert not [attrs for _, attrs in first.tags if attrs.get("class") == "p2r-last"]
    place = book.put("ann", "item-000", "insufficient", "no cup in it")
    text = " ".join(" ".join(Tags(card_html(book, place)).texts).split())
    assert "1 of 8 labelled" in text
    assert "saved: row 1 insufficient , no cup in it" in text
    undone = " ".join(Tags(card_html(book, book.take_back("ann", "item-000"))).texts)
    assert "0 of 8" in undone
    assert "taken back: insufficient" in undone


def test_the_end_is_said(book: LabelBook) -> None:
    for item in book.items:
        place = book.put("ann", item.item_id, "unsure", "")
    assert "All 8 rows are labelled." in card_html(book, place)
    assert "(8 of 8)" in start_html(book)


def test_the_correct_answer_reads_as_it_does_for_the_judge(book: LabelBook) -> None:
    question = book.items[0].question
    assert correct_answer_text(question) == "B. The cup stands"
    grounding = question.model_copy(
        update={
            "problem_type": ProblemType.TEMPORAL_GROUNDING,
            "solution": "4.4 to 5.2",
            "options": (),
        }
    )
    assert correct_answer_text(grounding) == "4.4 to 5.2 (in seconds)"
    assert shown_choices(grounding) == ()


def test_a_player_shows_the_clip_that_was_asked_about_and_no_more() -> None:
    encoded = EncodedFrames(
        media_id="video-1",
        kind="video",
        spec=FrameSpec("uniform:1").within((1.5, 4.0)),
        jpegs=(b"x",),
        indices=(45,),
        times=(2.5,),
        width=2,
        height=2,
        source_width=2,
        source_height=2,
        num_source_frames=300,
        duration_seconds=2.5,
        reader="pyav",
        start_seconds=0.5,
    )
    shown = ShownMedium.of("video", "a.mp4", encoded)
    assert (shown.fragment, shown.frames[0].seek) == ("#t=1.5,4", 2.0)
    assert 'src="rows/3/media/0#t=1.5,4"' in frames_html(3, (shown,))
    whole = ShownMedium.of("video", "a.mp4", replace(encoded, spec=FrameSpec("uniform:1")))
    assert 'src="rows/3/media/0"' in frames_html(3, (whole,))
