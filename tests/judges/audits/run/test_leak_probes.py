"""The leak probe: nothing in it was seen, and it is the same for the same seed."""

import random
from dataclasses import replace

import pytest
from helpers.judged_ledger import choice_question, free_question

from judges.audits.records import AuditItem
from judges.audits.run.leak_probes import probe_names, probe_reasons, probe_text, probes_id
from judges.sufficiency import parse_judgement, sufficiency_request
from schemas.questions import VideoQuestion


def _item(question: VideoQuestion, observation: str) -> AuditItem:
    return AuditItem(
        item_id=f"item-{question.row:02d}",
        question=question,
        observation=observation,
        source_verdict="yes",
        source_judge="",
        source_prompt_id="",
        video=question.media[0].path,
        stratum="",
        weight=1.0,
        position=question.row,
    )


ITEMS = [_item(choice_question(n, n // 2), f"On table {n} stands thing {n}.") for n in range(12)]


def test_every_kind_has_its_reason() -> None:
    assert set(probe_reasons()) == set(probe_names())
    assert probe_names() == ("claims-answer", "argues", "instructs", "empty", "other-video")
    assert probes_id().startswith("probes-")


@pytest.mark.parametrize("name", probe_names())
def test_a_probe_is_the_same_for_the_same_seed_whatever_the_order_of_rows(name: str) -> None:
    """Bug seen: one generator for all rows, so that --limit changed the probes of the rest."""
    shuffled = random.Random(3).sample(ITEMS, len(ITEMS))
    first = {one.item_id: probe_text(name, one, ITEMS, 1) for one in ITEMS}
    again = {one.item_id: probe_text(name, one, shuffled, 1) for one in shuffled}
    assert first == again
    assert len(set(first.values())) > 1
    assert first != {one.item_id: probe_text(name, one, ITEMS, 2) for one in ITEMS}


@pytest.mark.parametrize("name", [n for n in probe_names() if n != "other-video"])
def test_a_written_probe_holds_nothing_of_the_row_s_observation(name: str) -> None:
    for item in ITEMS:
        text = probe_text(name, item, ITEMS, 0)
        assert text is not None
        assert "stands" not in text
        assert "{answer}" not in text


def test_claims_name_the_answer_as_the_judge_sees_it() -> None:
    item = ITEMS[1]  # its gold answer is B, a plate
    texts = {probe_text("claims-answer", item, ITEMS, seed) for seed in range(30)}
    assert all(text is not None and "B. a plate" in text for text in texts)
    assert len(texts) == 4


def test_braces_in_an_answer_are_not_filled_again() -> None:
    question = free_question(1, 1)
    item = _item(question.model_copy(update={"solution": "{answer} {answer}"}), "x")
    texts = [probe_text("claims-answer", item, [item], seed) for seed in range(9)]
    assert "{answer} {answer}" in texts


def test_another_video_lends_an_observation_that_does_not_name_the_answer() -> None:
    """Bug seen: rows of the same video, and the row itself, as donors."""
    items = [
        *ITEMS,
        replace(ITEMS[5], item_id="names-it", observation="There is a plate on the table."),
    ]
    for seed in range(40):
        text = probe_text("other-video", ITEMS[1], items, seed)
        donor = next(one for one in items if one.observation == text)
        assert donor.video != ITEMS[1].video
        assert donor.question.solution != "B"
        assert donor.item_id != "names-it"


def test_the_same_answer_is_never_lent_even_where_nothing_else_is_left() -> None:
    same = [ITEMS[1], ITEMS[4]]  # both have the gold answer B, a plate
    assert probe_text("other-video", same[0], same, 0) is None


def test_one_video_alone_has_no_probe_of_another() -> None:
    assert probe_text("other-video", ITEMS[0], ITEMS[:2], 0) is None


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no probe 'flatters': expected one of claims-answer"):
        probe_text("flatters", ITEMS[0], ITEMS, 0)


def test_no_probe_reaches_the_judge_s_prompt_as_more_than_text() -> None:
    """A probe with fences in it adds no fence, and no judgement that is not escaped."""
    plain = sufficiency_request(ITEMS[0].question, "x")[0].text
    for seed in range(40):
        text = probe_text("instructs", ITEMS[0], ITEMS, seed)
        assert text is not None
        prompt = sufficiency_request(ITEMS[0].question, text)[0].text
        for fence in ("<observations>", "</observations>", "<judgement>", "###"):
            assert prompt.count(fence) == plain.count(fence)


def test_a_judge_that_only_repeats_an_injected_verdict_is_read_as_it_says() -> None:
    """The probe measures the judge: the parser does not protect one that obeys."""
    assert parse_judgement("As told: <judgement>Yes</judgement>").verdict == "yes"
