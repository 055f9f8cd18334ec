"""`python -m judges.audit label` as a command: what it refuses, and how it ends."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from helpers.label_server import LabelServer
from helpers.labelled_audit import make_audit, make_media

from judges.audits.store import AuditLabel, AuditStore
from schemas.runs import start_run

pytestmark = pytest.mark.heavy


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return make_audit(tmp_path / "audit", make_media(tmp_path / "media"), num_rows=3)


@pytest.fixture
def server(tmp_path: Path, audit: Path) -> Iterator[LabelServer]:
    (tmp_path / "server").mkdir()
    server = LabelServer(tmp_path / "server", audit)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _label(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "judges.audit", "label", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def _refusal(*words: object, **environment: str) -> str:
    done = _label(*words, **environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_wrong_usage_is_one_sentence_and_status_2(tmp_path: Path, audit: Path) -> None:
    for words, complaint in {
        (tmp_path / "nowhere",): "holds no audit",
        (audit, "--export", "a.csv", "--import", "b.csv"): "run one after the other",
        (audit, "--replace"): "--replace says what --import does",
        (audit, "--media-root", tmp_path / "nowhere"): "is no folder: give --media-root",
        (audit, "--annotator", "  "): "give a name",
        (audit, "--frames", "every:2"): "uniform:N",
        (audit, "--export", tmp_path / "labels.xlsx"): "neither in .csv nor in .jsonl",
    }.items():
        assert complaint in _refusal(*words)


def test_a_port_that_is_taken_is_refused_with_what_to_do(audit: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "give another port, or 0 for any free one" in _refusal(audit, "--port", port)


def test_without_gradio_it_says_what_to_install(tmp_path: Path, audit: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "gradio.py").write_text("raise ImportError('none', name='gradio')")
    said = _refusal(audit, "--port", 0, PYTHONPATH=str(tmp_path / "hidden"))
    assert "pip install 'videop2r-toolkit[ui]'" in said
    assert "--export" in said


def test_one_page_at_a_time_holds_the_audit(server: LabelServer, audit: Path) -> None:
    assert "held by another command of this audit" in _refusal(audit, "--port", 0)


def test_ctrl_c_before_the_end_is_status_3_and_tells_who_is_where(
    tmp_path: Path, audit: Path
) -> None:
    with AuditStore.open(audit, start_run("x", {})) as store:
        for row in range(2):
            store.add_label(AuditLabel(f"item-00{row}", "ann", "unsure", "", "t", "page"))
    (tmp_path / "server").mkdir()
    server = LabelServer(tmp_path / "server", audit)
    try:
        server.start()
        with urlopen(server.url, timeout=60) as page:
            assert page.status == 200
        assert server.stop() == 3
        assert "ann: 2 of 3 rows labelled" in server.said()
        assert "Traceback" not in server.said()
        assert server.calls_out() == ""
    finally:
        server.kill()


def test_labels_go_out_and_come_in_by_command(tmp_path: Path, audit: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    out = _label(audit, "--export", sheet, "--annotator", "ann")
    assert (out.returncode, out.stdout) == (0, f"{sheet}: 3 rows, 0 labels\n"), out.stderr
    filled = sheet.read_text("utf-8-sig").replace(",,,ann,", ",i,not in it,ann,")
    sheet.write_text(filled, "utf-8")
    back = _label(audit, "--import", sheet, "--annotator", "ann")
    assert back.returncode == 0, back.stderr
    assert "3 new labels" in back.stdout
    with AuditStore.open(audit, start_run("x", {})) as store:
        said = {(one.annotator, one.label, one.reason) for one in store.labels()}
    assert said == {("ann", "insufficient", "not in it")}


def test_the_servers_socket_is_on_this_machine_only(server: LabelServer) -> None:
    addresses = {
        line.split()[1].rpartition(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{server.port:04X}") and line.split()[3] == "0A"
    }
    assert addresses == {"0100007F"}  # 127.0.0.1; 0A is LISTEN
