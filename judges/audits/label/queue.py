"""The labels of an open audit, and each annotator's next row: the page's state without its HTML.

The audit's file has one owner process, so what is read at the start and then kept up to date here
is what the file holds. A label is committed before any method that stores it returns.
"""

import threading
import unicodedata
from dataclasses import dataclass

from judges.audits.stated_answers import refuse_without_answer
from judges.audits.store import AuditItem, AuditLabel, AuditStore, utc_now
from schemas.serialization import whole_characters

MAX_NAME_CHARACTERS = 60
MAX_REASON_CHARACTERS = 2000


@dataclass(frozen=True)
class Place:
    """Where an annotator is: the row to show, how far along, and the label given last.

    `item` is None when every row has its label. `earlier` is a label of this annotator that was
    just taken back: its reason is offered again.
    """

    annotator: str
    item: AuditItem | None
    next_item: AuditItem | None
    num_labelled: int
    num_items: int
    last: AuditLabel | None
    earlier: AuditLabel | None = None


class LabelBook:
    """The labels of an open audit. Methods may be called from any thread."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store
        self.kind = store.kind
        self.items = tuple(store.items())
        self.row_of = {item.item_id: row for row, item in enumerate(self.items)}
        self._lock = threading.Lock()
        # By annotator and item; in each the label given last stands last.
        self._given: dict[str, dict[str, AuditLabel]] = {}
        for label in store.labels(current_only=True):
            self._given.setdefault(label.annotator, {})[label.item_id] = label

    def counts(self) -> dict[str, int]:
        """How many rows each annotator has labelled, in alphabetical order."""
        with self._lock:
            return {name: len(given) for name, given in sorted(self._given.items()) if given}

    def labels(self, annotator: str) -> dict[str, AuditLabel]:
        """An annotator's labels by item."""
        with self._lock:
            return dict(self._given.get(annotator, {}))

    def place(self, annotator: str) -> Place:
        """The first row, in the blind order, that `annotator` has not labelled."""
        with self._lock:
            return self._place(annotator)

    def put(self, annotator: str, item_id: str, label: str, reason: str) -> Place:
        """Store a label on the row that was shown, and go on.

        Raises ValueError for what is no row, no label, or a reason that is too long.
        """
        name = annotator_name(annotator)
        if not isinstance(item_id, str) or item_id not in self.row_of:
            raise ValueError("this page shows a row of another audit: reload it")
        said = next((word for word in self.kind.labels if word == label), None)
        if said is None:
            raise ValueError(f"a label is one of {', '.join(self.kind.labels)}, not {label!r}")
        reason = checked_reason(reason)
        refuse_without_answer(self.kind, self.items[self.row_of[item_id]].question, said, reason)
        given = AuditLabel(item_id, name, said, reason, utc_now(), "page")
        with self._lock:
            self._store.add_label(given)
            own = self._given.setdefault(name, {})
            own.pop(item_id, None)
            own[item_id] = given
            return self._place(name)

    def take_back(self, annotator: str, item_id: str) -> Place:
        """Take back `annotator`'s last label, on the row that the page named, and show that row.

        Where it is not the last label any more (another page of the same annotator), nothing
        happens but that the page is brought up to date.
        """
        name = annotator_name(annotator)
        with self._lock:
            own = self._given.get(name, {})
            if not isinstance(item_id, str) or not own or next(reversed(own)) != item_id:
                return self._place(name)
            self._store.withdraw_label(item_id, name)
            return self._place(name, own.pop(item_id))

    def _place(self, annotator: str, earlier: AuditLabel | None = None) -> Place:
        own = self._given.get(annotator, {})
        open_items = [item for item in self.items if item.item_id not in own]
        if earlier is not None:
            shown = self.items[self.row_of[earlier.item_id]]
            open_items.remove(shown)
            open_items.insert(0, shown)
        return Place(
            annotator=annotator,
            item=open_items[0] if open_items else None,
            next_item=open_items[1] if len(open_items) > 1 else None,
            num_labelled=len(own),
            num_items=len(self.items),
            last=next(reversed(own.values())) if own else None,
            earlier=earlier,
        )


def annotator_name(text: str) -> str:
    """A name in the one form in which it is stored. Raises ValueError."""
    if not isinstance(text, str):  # a page sends what it likes
        raise ValueError("a label needs its author: give a name")
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise ValueError("a label needs its author: give a name")
    if len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise ValueError(
            f"{name[:MAX_NAME_CHARACTERS]!r} is no name: at most {MAX_NAME_CHARACTERS} printable "
            "characters are expected"
        )
    return name


def checked_reason(text: str) -> str:
    """A reason that can be stored, without white space around it. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"a reason is a text, not {text!r}")
    reason = whole_characters(text.strip())
    if len(reason) > MAX_REASON_CHARACTERS:
        raise ValueError(
            f"the reason has {len(reason):,} characters: at most {MAX_REASON_CHARACTERS:,} are kept"
        )
    return reason
