"""Who labelled what, which row is next, and what undo does; without any page."""

import threading
from pathlib import Path

import pytest
from helpers.labelled_audit import make_audit

from judges.audits.label.queue import LabelBook, annotator_name
from judges.audits.store import AuditLabel, AuditStore, utc_now
from schemas.runs import start_run


@pytest.fixture
def store(tmp_path: Path):
    make_audit(tmp_path / "audit", None, num_rows=6)
    with AuditStore.open(tmp_path / "audit", start_run("label", {})) as opened:
        yield opened


def _shown(book: LabelBook, annotator: str) -> str | None:
    item = book.place(annotator).item
    return item and item.item_id


def _stored(store: AuditStore) -> dict[tuple[str, str], str | None]:
    return {(one.annotator, one.item_id): one.label for one in store.labels()}


def test_each_label_is_stored_before_the_next_row_is_shown(store: AuditStore) -> None:
    book = LabelBook(store)
    for number, label in enumerate(store.kind.labels, 1):
        shown = _shown(book, "ann")
        assert shown is not None
        place = book.put("ann", shown, label, " because ")
        assert (place.num_labelled, place.num_items) == (number, 6)
        assert place.item is not None
        assert place.item.item_id == f"item-00{number}"
        given = store.labels()[-1]
        assert (given.item_id, given.annotator, given.label) == (shown, "ann", label)
        assert (given.reason, given.origin) == ("because", "page")
        assert given.labelled_at[:2] == "20"
        assert given.labelled_at.endswith("+00:00")


def test_a_new_book_goes_on_where_the_old_one_was(store: AuditStore) -> None:
    book = LabelBook(store)
    book.put("ann", "item-000", "sufficient", "")
    book.put("ann", "item-001", "unsure", "dark")
    place = LabelBook(store).place("ann")
    assert place.item is not None
    assert (place.item.item_id, place.num_labelled) == ("item-002", 2)
    assert place.last is not None
    assert (place.last.item_id, place.last.reason) == ("item-001", "dark")


def test_undo_shows_the_row_again_with_its_reason_and_survives_a_restart(store: AuditStore) -> None:
    """Bug seen: the label was taken back in memory only."""
    book = LabelBook(store)
    book.put("ann", "item-000", "sufficient", "")
    book.put("ann", "item-001", "insufficient", "blurred")
    place = book.take_back("ann", "item-001")
    assert place.item is not None
    assert place.earlier is not None
    assert (place.item.item_id, place.num_labelled) == ("item-001", 1)
    assert (place.earlier.label, place.earlier.reason) == ("insufficient", "blurred")
    assert _shown(LabelBook(store), "ann") == "item-001"
    assert book.take_back("ann", "item-000").num_labelled == 0
    assert _stored(store) == {}


def test_undo_shows_the_row_that_was_taken_back_even_where_an_earlier_one_is_open(
    store: AuditStore,
) -> None:
    book = LabelBook(store)
    book.put("ann", "item-004", "sufficient", "")
    place = book.take_back("ann", "item-004")
    assert place.item is not None
    assert place.next_item is not None
    assert (place.item.item_id, place.next_item.item_id) == ("item-004", "item-000")


def test_undo_of_what_is_not_the_last_label_takes_nothing_back(store: AuditStore) -> None:
    """An old page of the same annotator: its undo must not reach a label it does not show."""
    book = LabelBook(store)
    book.put("ann", "item-000", "sufficient", "")
    book.put("ann", "item-001", "sufficient", "")
    for stale in ("item-000", "item-005", ""):
        assert book.take_back("ann", stale).num_labelled == 2
    assert len(_stored(store)) == 2


def test_annotators_do_not_see_or_change_each_others_labels(store: AuditStore) -> None:
    book = LabelBook(store)
    book.put("ann", "item-000", "sufficient", "hers")
    assert _shown(book, "bob") == "item-000"
    assert book.place("bob").last is None
    book.put("bob", "item-000", "insufficient", "his")
    book.take_back("bob", "item-000")
    assert _stored(store) == {("ann", "item-000"): "sufficient"}
    assert book.counts() == {"ann": 1}


def test_many_labels_from_many_threads_are_all_there(store: AuditStore) -> None:
    book = LabelBook(store)

    def label(annotator: str) -> None:
        for item in book.items:
            book.put(annotator, item.item_id, book.kind.labels[len(annotator) % 3], annotator)

    names = ["a", "bb", "ccc", "dddd"]
    threads = [threading.Thread(target=label, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.counts() == dict.fromkeys(names, 6)
    expected = {
        (name, item.item_id): book.kind.labels[len(name) % 3]
        for name in names
        for item in book.items
    }
    assert _stored(store) == expected


def test_rows_that_came_from_a_file_are_not_asked_again(store: AuditStore) -> None:
    for row in (0, 1, 3):
        label = AuditLabel(f"item-00{row}", "ann", "unsure", "", utc_now(), "file:x.csv")
        store.add_label(label)
    book = LabelBook(store)
    assert _shown(book, "ann") == "item-002"
    following = book.put("ann", "item-002", "sufficient", "").item
    assert following is not None
    assert following.item_id == "item-004"


def test_when_all_rows_are_labelled_none_is_shown(store: AuditStore) -> None:
    book = LabelBook(store)
    for item in book.items:
        place = book.put("ann", item.item_id, "unsure", "")
    assert (place.item, place.next_item, place.num_labelled) == (None, None, 6)


@pytest.mark.parametrize(
    ("item_id", "label", "reason", "complaint"),
    [
        ("item-999", "sufficient", "", "another audit"),
        ("item-000", "yes", "", "sufficient, insufficient, unsure"),
        ("item-000", "sufficient", "x" * 2001, "2,001 characters"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_reason(
    store: AuditStore, item_id: str, label: str, reason: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        LabelBook(store).put("ann", item_id, label, reason)
    assert _stored(store) == {}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("  Ann   Lee ", "Ann Lee"),
        ("Zoe\u0308", "Zo\u00eb"),  # two ways to write one letter must be one person
        ("x" * 60, "x" * 60),
    ],
)
def test_one_person_has_one_name(given: str, stored: str) -> None:
    assert annotator_name(given) == stored


@pytest.mark.parametrize("name", ["", " \n ", "x" * 61, "a\x00b", "a\u202eb"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        annotator_name(name)


def test_what_a_page_sends_may_be_anything(store: AuditStore) -> None:
    book = LabelBook(store)
    row = _shown(book, "ann")
    assert row is not None
    for wrong in (None, 7, ["ann"]):
        with pytest.raises(ValueError, match="give a name"):
            annotator_name(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="another audit"):
            book.put("ann", wrong, "sufficient", "")  # type: ignore[arg-type]
    book.put("ann", row, "sufficient", "half \ud800")
    assert [one.reason for one in store.labels()] == ["half \ufffd"]
