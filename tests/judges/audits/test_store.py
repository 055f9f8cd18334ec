"""The audit's folder: what is stored comes back, labels supersede, nothing acknowledged is lost."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from judges.audits.ledger_tables import AUDIT_MIGRATIONS
from judges.audits.store import AuditError, AuditItem, AuditLabel, AuditStore, AuditVerdict, Stratum
from schemas.ledger.ledger import LedgerLockedError
from schemas.ledger.migrations import MIGRATIONS
from schemas.ledger.rows import CallRow
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.runs import start_run


def _question(number: int) -> VideoQuestion:
    return VideoQuestion(
        problem=f"How many cups stand on table {number}?",
        options=("A. one", "B. two"),
        solution="B",
        media=(MediaRef(kind="video", path=f"clips/{number // 2}.mp4"),),
        problem_type=ProblemType.MULTIPLE_CHOICE,
        data_source="kitchen",
        row=number,
    )


def _item(number: int) -> AuditItem:
    question = _question(number)
    return AuditItem(
        item_id=f"item-{number}",
        question=question,
        observation=f"Two cups stand on table {number}.",
        source_verdict="yes" if number % 2 else "no",
        source_judge="oracle:1",
        source_prompt_id="prompt-0",
        video=question.media[0].path,
        stratum="yes | multiple choice | kitchen",
        weight=2.5,
        position=9 - number,
        inclusion_probability=0.4,
        draw=number,
        frame_spec="frames-1",
    )


def _store(folder: Path, count: int = 3) -> AuditStore:
    store = AuditStore.create(folder, start_run("audit", {}))
    stratum = Stratum(
        "yes | multiple choice | kitchen", "yes", "multiple choice", "kitchen", 10, count
    )
    store.add_sample(
        [_item(number) for number in range(count)],
        [stratum],
        {"kind": "sufficiency", "media_root": "/media", "seed": 7},
    )
    return store


def _label(item_id: str, annotator: str, label: str | None) -> AuditLabel:
    return AuditLabel(item_id, annotator, label, "why", "2026-01-01T00:00:00.000+00:00", "page")  # type: ignore[arg-type]


def _verdict(item_id: str, **changes: object) -> AuditVerdict:
    verdict = AuditVerdict(
        item_id=item_id,
        judge="oracle:1",
        variant="sufficiency",
        permutation=0,
        probe="",
        repeat=0,
        verdict="yes",
        unscored_reason="",
        prompt_id="prompt-0",
        call_key="call-1",
        seconds=None,
        cost_usd=None,
        reply="<judgement>Yes</judgement>",
        call_keys=("call-0", "call-1"),
    )
    return replace(verdict, **changes)  # type: ignore[arg-type]


def _call(key: str, cost_usd: float | None) -> CallRow:
    return CallRow(
        call_key=key, status="ok", is_final=True, reply="x", cost_usd=cost_usd, seconds=2.0
    )


def test_items_come_back_as_they_were_in_the_blind_order(tmp_path: Path) -> None:
    """Bug seen: ordering by item id instead of position."""
    _store(tmp_path).close()
    with AuditStore.open(tmp_path, start_run("audit", {})) as store:
        assert store.items() == [_item(2), _item(1), _item(0)]
        assert [(s.population, s.sampled) for s in store.strata()] == [(10, 3)]
        assert store.media_root == Path("/media")
        assert store.source["seed"] == 7


def test_a_folder_without_an_audit_is_refused_with_the_command_to_type(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"judges\.audit sample"):
        AuditStore.open(tmp_path / "nowhere", start_run("audit", {}))
    assert not (tmp_path / "nowhere").exists()


def test_a_second_sample_does_not_replace_the_first(tmp_path: Path) -> None:
    with _store(tmp_path) as store, pytest.raises(AuditError, match="3 rows already"):
        store.add_sample([_item(5)], [], {})


def test_a_later_label_of_an_annotator_counts_and_the_earlier_stays_in_the_history(
    tmp_path: Path,
) -> None:
    """Bug seen: current labels by item only, so that annotators overwrote each other."""
    with _store(tmp_path) as store:
        store.add_label(_label("item-0", "ann", "sufficient"))
        store.add_label(_label("item-0", "bob", "unsure"))
        store.add_label(_label("item-0", "ann", "insufficient"))
        current = [(label.annotator, label.label) for label in store.labels()]
        assert current == [("bob", "unsure"), ("ann", "insufficient")]
        assert [label.label for label in store.labels(current_only=False)] == [
            "sufficient",
            "unsure",
            "insufficient",
        ]


def test_a_label_taken_back_does_not_bring_the_one_before_it_back(tmp_path: Path) -> None:
    """Bug seen: leaving out withdrawn rows before looking for the last one."""
    with _store(tmp_path) as store:
        store.add_label(_label("item-0", "ann", "sufficient"))
        store.withdraw_label("item-0", "ann")
        assert store.labels() == []
        store.add_label(_label("item-0", "ann", "unsure"))
        assert [label.label for label in store.labels()] == ["unsure"]
        assert len(store.labels(current_only=False)) == 3


def test_labels_of_many_threads_are_all_kept(tmp_path: Path) -> None:
    with _store(tmp_path) as store:

        def give(annotator: str) -> None:
            for number in range(3):
                store.add_label(_label(f"item-{number}", annotator, "sufficient"))

        threads = [threading.Thread(target=give, args=(f"a{n}",)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.labels()) == 15


@pytest.mark.heavy
def test_an_acknowledged_label_survives_a_kill(tmp_path: Path) -> None:
    """Bug seen: add_label without flush."""
    _store(tmp_path).close()
    program = f"""
import os, signal
from pathlib import Path
from judges.audits.store import AuditLabel, AuditStore
from schemas.runs import start_run
store = AuditStore.open(Path({str(tmp_path)!r}), start_run("audit", {{}}))
store.add_label(AuditLabel("item-1", "ann", "unsure", "", "2026-01-01", "page"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    with AuditStore.open(tmp_path, start_run("audit", {})) as store:
        assert [label.item_id for label in store.labels()] == ["item-1"]


@pytest.mark.parametrize(
    ("item_id", "annotator", "label", "complaint"),
    [
        ("item-9", "ann", "sufficient", "no row 'item-9'"),
        ("item-0", "ann", "yes", "a label is one of"),
        ("item-0", " ", "unsure", "has no annotator"),
    ],
)
def test_a_label_that_fits_nothing_is_refused(
    tmp_path: Path, item_id: str, annotator: str, label: str, complaint: str
) -> None:
    with _store(tmp_path) as store:
        with pytest.raises(ValueError, match=complaint):
            store.add_labels([_label("item-0", "ann", "unsure"), _label(item_id, annotator, label)])
        assert store.labels() == []  # all or nothing


def test_a_verdict_asked_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        store.add_verdict(_verdict("item-0"))
        store.add_verdict(_verdict("item-0", repeat=1))
        store.add_verdict(_verdict("item-0", probe="empty", probe_text=""))
        store.add_verdict(_verdict("item-0", verdict="no", prompt_id="prompt-1"))
        found = store.verdicts()
        assert [(v.probe, v.repeat, v.verdict) for v in found] == [
            ("", 0, "no"),
            ("", 1, "yes"),
            ("empty", 0, "yes"),
        ]
        assert found[0].prompt_id == "prompt-1"


def test_seconds_and_dollars_of_a_verdict_are_those_of_all_its_calls(tmp_path: Path) -> None:
    """Bug seen: counting the deciding call only; a call of unknown price counted as free."""
    with _store(tmp_path) as store:
        store.ledger.add_call(_call("call-0", 0.25))
        store.ledger.add_call(_call("call-1", 0.5))
        store.ledger.add_call(_call("call-2", None))
        store.add_verdict(_verdict("item-0"))
        store.add_verdict(_verdict("item-1", call_keys=("call-1", "call-2")))
        store.add_verdict(_verdict("item-2", seconds=9.0, cost_usd=0.0))
        took = {v.item_id: (v.seconds, v.cost_usd) for v in store.verdicts()}
        assert took == {"item-0": (4.0, 0.75), "item-1": (4.0, None), "item-2": (9.0, 0.0)}


def test_half_characters_in_a_reply_do_not_stop_the_audit(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        store.add_verdict(_verdict("item-0", reply="broken \ud83d escape"))
        assert store.verdicts()[0].reply == "broken \ufffd escape"


def test_an_audit_that_is_open_says_which_kind_of_command_holds_it(tmp_path: Path) -> None:
    with (
        _store(tmp_path),
        pytest.raises(LedgerLockedError, match="another command of this audit"),
    ):
        AuditStore.open(tmp_path, start_run("audit", {}))


def test_every_ledger_migration_is_among_those_of_the_audit() -> None:
    """A later ledger migration goes behind the audit's own, with the next number."""
    names = [migration.name for migration in AUDIT_MIGRATIONS]
    assert {migration.name for migration in MIGRATIONS} <= set(names)
    assert [migration.number for migration in AUDIT_MIGRATIONS] == list(range(1, len(names) + 1))
