"""`judges.audit sample`: what is drawn from which ledger, blind, and the same again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.folders import TESTS
from helpers.judged_ledger import JUDGE, choice_question, free_question, judged_ledger

from cli.config import UsageError
from judges.audit import main
from judges.audits.sample.command import SampleConfig, sample
from judges.audits.store import AuditItem, AuditStore, Stratum
from schemas.ledger.ledger import Ledger, LedgerError
from schemas.runs import start_run

pytestmark = pytest.mark.heavy


def _build(folder: Path, num_rows: int = 60) -> Path:
    verdicts = []
    for number in range(num_rows):
        question = choice_question(number, number // 4)
        verdicts.append((question, 0, ["no" if number % 5 == 0 else "yes"]))
    judged_ledger(folder / "cot.duckdb", verdicts)
    (folder / "clips").mkdir()
    saved = {"media_root": str(folder / "clips")}
    (folder / "config.json").write_text(json.dumps(saved), encoding="utf-8")
    return folder


def _audit(folder: Path) -> tuple[list[AuditItem], list[Stratum], dict[str, object]]:
    with AuditStore.open(folder, start_run("test", {})) as store:
        return store.items(), store.strata(), store.source


def test_a_build_is_sampled_by_stratum_with_at_most_k_rows_per_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = _build(tmp_path / "out")
    status = main(["sample", "--build", str(build), "--audit", str(tmp_path / "a"), "--size", "20"])
    assert status == 0
    items, strata, source = _audit(tmp_path / "a")
    assert [(s.source_verdict, s.population, s.sampled) for s in strata] == [
        ("no", 12, 5),
        ("yes", 48, 15),
    ]
    assert max(sum(i.video == one.video for i in items) for one in items) <= 2
    assert [item.position for item in items] == list(range(20))
    assert all(item.source_judge == JUDGE for item in items)
    assert all(item.weight == 1 / item.inclusion_probability for item in items)
    assert source["media_root"] == str(build / "clips")
    assert source["population"] == 60
    shown = capsys.readouterr().out
    assert "20 of 60 verdicts" in shown
    assert not any(item.observation in shown for item in items)


def test_the_order_of_the_rows_tells_nothing_of_their_verdicts(tmp_path: Path) -> None:
    """Bug seen: rows in stratum order. Of 5 no among 20, the first 5 rows hold 1.25 on average."""
    build = _build(tmp_path / "out")
    firsts = []
    for seed in range(12):
        config = SampleConfig(build=build, audit=tmp_path / f"a{seed}", size=20, seed=seed)
        assert sample(config) == 0
        items, _, _ = _audit(tmp_path / f"a{seed}")
        firsts.append(sum(item.source_verdict == "no" for item in items[:5]))
    assert 0 < sum(firsts) < 12 * 3
    assert len(set(firsts)) > 1


def test_the_same_seed_draws_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    build = _build(tmp_path / "out")
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(SampleConfig(build=build, audit=tmp_path / name, size=20, seed=seed))
        drawn.append(_audit(tmp_path / name)[0])
    assert drawn[0] == drawn[1]
    assert {i.item_id for i in drawn[0]} != {i.item_id for i in drawn[2]}


def test_the_build_s_folder_is_not_touched(tmp_path: Path) -> None:
    """Bug seen: opening the ledger to write, which added a run to it."""
    build = _build(tmp_path / "out")
    before = {path: path.read_bytes() for path in build.iterdir() if path.is_file()}
    sample(SampleConfig(build=build, audit=tmp_path / "a"))
    assert {path: path.read_bytes() for path in build.iterdir() if path.is_file()} == before


def test_the_last_verdict_on_an_attempt_counts_and_leaks_never_judged_are_left_out(
    tmp_path: Path,
) -> None:
    ledger = judged_ledger(
        tmp_path / "rl.duckdb",
        [
            (free_question(1, 1), 0, ["unscored", "no"]),
            (free_question(1, 1), 1, ["unscored", "unscored"]),
            (free_question(2, 2), 0, [None]),
            (free_question(3, 3), 7, ["yes"]),
        ],
    )
    sample(SampleConfig(ledger=(ledger,), audit=tmp_path / "a", max_per_video=9))
    items, _, source = _audit(tmp_path / "a")
    found = {(i.question.row, i.draw): (i.source_verdict, i.source_unscored_reason) for i in items}
    assert found == {(1, 0): ("no", ""), (1, 1): ("unscored", "off_menu"), (3, 7): ("yes", "")}
    assert {i.observation for i in items} >= {"Observation 7 of row 3."}
    assert source["not_judged"] == 1


def test_ledgers_of_several_processes_are_one_population(tmp_path: Path) -> None:
    """The same question and draw in two of them are two rows."""
    paths = [
        judged_ledger(tmp_path / f"rank{n}.duckdb", [(free_question(1, 1), 0, [verdict])])
        for n, verdict in enumerate(["yes", "no"])
    ]
    sample(SampleConfig(ledger=tuple(paths), audit=tmp_path / "a"))
    items, _, _ = _audit(tmp_path / "a")
    assert sorted(item.source_verdict for item in items) == ["no", "yes"]


def test_a_second_sample_with_other_options_is_refused_and_with_the_same_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = _build(tmp_path / "out")
    first = SampleConfig(build=build, audit=tmp_path / "a", size=20)
    sample(first)
    before = _audit(tmp_path / "a")
    assert sample(first) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert _audit(tmp_path / "a") == before
    with pytest.raises(UsageError, match="--seed was 0, is now 5"):
        sample(SampleConfig(build=build, audit=tmp_path / "a", size=20, seed=5))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give either --build OUT"),
        ({"build": "nowhere"}, "holds no cot.duckdb"),
        ({"ledger": ("nowhere.duckdb",)}, "is not there"),
        ({"ledger": ("text.duckdb",)}, "is not a ledger"),
        ({"ledger": ("empty.duckdb",)}, "holds no verdict of a judge"),
        ({"ledger": ("good.duckdb",), "media_root": "nowhere"}, "--media-root nowhere is not"),
    ],
)
def test_what_cannot_be_sampled_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.duckdb").write_text("not a database", encoding="utf-8")
    judged_ledger(Path("empty.duckdb"), [])
    judged_ledger(Path("good.duckdb"), [(free_question(1, 1), 0, ["yes"])])
    with pytest.raises((UsageError, LedgerError), match=complaint):
        sample(SampleConfig.model_validate(options | {"audit": "a"}))
    assert not Path("a").exists()


def test_a_ledger_in_use_is_refused(tmp_path: Path) -> None:
    """DuckDB would let the same process in; another one it keeps out."""
    build = _build(tmp_path / "out", 5)
    with (
        Ledger.open(build / "cot.duckdb", start_run("build", {})),
        pytest.raises(LedgerError, match="already open in this process"),
    ):
        sample(SampleConfig(build=build, audit=tmp_path / "a"))


@pytest.mark.heavy
def test_what_a_killed_build_had_committed_is_read_without_changing_its_files(
    tmp_path: Path,
) -> None:
    """Its last rows stand in DuckDB's write-ahead log only."""
    build = _build(tmp_path / "out", 5)
    program = f"""
import os, signal
from pathlib import Path
from helpers.judged_ledger import free_question
from schemas.ledger.ledger import Ledger
from schemas.ledger.rows import AttemptRow, SufficiencyRow
from schemas.runs import start_run
ledger = Ledger.open(Path({str(build / "cot.duckdb")!r}), start_run("build", {{}}))
question = free_question(9, 9)
about = {{"question_id": question.question_id, "draw": 0}}
ledger.add_question(question)
ledger.add_attempt(AttemptRow(**about, call_key="c", output="o", observation="Seen last."))
ledger.add_sufficiency(SufficiencyRow(**about, verdict="no", judge="j"))
ledger.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    before = {path: path.read_bytes() for path in build.iterdir() if path.is_file()}
    assert build / "cot.duckdb.wal" in before
    assert sample(SampleConfig(build=build, audit=tmp_path / "a")) == 0
    assert "Seen last." in {item.observation for item in _audit(tmp_path / "a")[0]}
    assert {path: path.read_bytes() for path in build.iterdir() if path.is_file()} == before
