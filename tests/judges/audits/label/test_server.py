"""The labelling page over HTTP: what it shows, what it hides, whom it answers."""

import base64
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.html_tags import Tags
from helpers.labelled_audit import JUDGES_SIDE, make_audit, make_media
from PIL import Image
from starlette.testclient import TestClient

from judges.audits.label.queue import LabelBook
from judges.audits.label.server import labelling_app
from judges.audits.store import AuditStore
from media.sampling import FrameSpec
from media.store import FrameStore
from schemas.runs import start_run

pytestmark = pytest.mark.heavy  # Gradio alone takes seconds to import

ORIGIN = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    folder = tmp_path_factory.mktemp("audit")
    make_audit(folder / "audit", make_media(folder / "media"), num_rows=8)
    (folder / "outside.mp4").write_bytes((folder / "media" / "0.mp4").read_bytes())
    with AuditStore.open(folder / "audit", start_run("label", {})) as opened:
        yield opened


@pytest.fixture(scope="module")
def book(store: AuditStore) -> LabelBook:
    return LabelBook(store)


@pytest.fixture(scope="module")
def client(store: AuditStore, book: LabelBook) -> Iterator[TestClient]:
    root = store.media_root
    assert root is not None
    with FrameStore(root, spec=FrameSpec("uniform:4"), cache_dir=None, reader="pyav") as frames:
        app = labelling_app(book, frames, root, follow_symlinks=False, default_annotator=None)
        with TestClient(app, base_url=ORIGIN) as opened:
            yield opened


def _event(client: TestClient, target: str) -> dict[str, Any]:
    """The page's handler of a button, by the button's id."""
    config = client.get("/config").json()
    ids = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    (found,) = [d for d in config["dependencies"] if [ids[target], "click"] in d["targets"]]
    return found


def _press(client: TestClient, target: str, name: str, item: str, reason: str = "") -> Any:
    body = {
        "data": [name, item, reason],
        "fn_index": _event(client, target)["id"],
        "session_hash": "test",
    }
    return client.post("/gradio_api/run/predict", json=body)


def test_nothing_that_the_page_sends_tells_what_the_judge_said(client: TestClient) -> None:
    answers = [client.get("/").text, client.get("/config").text, client.get("/page.js").text]
    answers += [client.get(f"/rows/{row}/frames").text for row in range(8)]
    answers += [_press(client, "p2r-unsure", "blind", f"item-00{row}").text for row in range(8)]
    text = "\n".join(answers)
    assert "What happens in scene 5?" in text
    assert "verdict" not in text
    assert not [word for word in JUDGES_SIDE if word in text]


def test_frames_come_with_their_times_and_a_player(client: TestClient) -> None:
    page = Tags(client.get("/rows/0/frames").text)
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 4
    for source in pictures:
        assert source is not None
        data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(data)).size == (96, 64)
    # 20 frames at 10 a second, the middle of each quarter of the 2 s: 0.25, 0.75, 1.25, 1.75.
    assert [text for text in page.texts if re.fullmatch(r"\d\.\d s", text)] == [
        "0.2 s",
        "0.7 s",
        "1.2 s",
        "1.7 s",
    ]
    (player,) = [attrs for tag, attrs in page.tags if tag == "video"]
    video = client.get(f"/{player['src']}", headers={"range": "bytes=0-99"})
    assert (video.status_code, len(video.content)) == (206, 100)
    assert video.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize(
    ("row", "why"), [(2, "undecodable"), (5, "unsafe_path")], ids=["broken", "outside"]
)
def test_a_medium_that_cannot_be_shown_says_why_and_what_to_do(
    client: TestClient, row: int, why: str
) -> None:
    text = client.get(f"/rows/{row}/frames").text
    assert "This video cannot be shown." in text
    assert why in text
    assert "label the row unsure" in text


def test_all_media_of_a_row_are_shown(client: TestClient) -> None:
    page = Tags(client.get("/rows/4/frames").text)
    kinds = [attrs["data-kind"] for tag, attrs in page.tags if tag == "figure"]
    assert kinds == ["video", "image"]
    assert client.get("/rows/4/media/1").headers["content-type"] == "image/png"


def test_a_file_of_the_data_set_is_never_served_as_a_page(client: TestClient) -> None:
    answer = client.get("/rows/5/media/0")
    assert answer.text.startswith("<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/rows/5/media/1", "/rows/0/media/1", "/rows/8/media/0", "/rows/-1/media/0", "/rows/8/frames"],
)
def test_only_media_of_the_audit_under_its_root_are_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_label_is_in_the_file_when_the_answer_comes(
    client: TestClient, store: AuditStore
) -> None:
    answer = _press(client, "p2r-insufficient", "ann", "item-003", "too dark")
    assert answer.status_code == 200
    label = store.labels()[-1]
    assert (label.item_id, label.annotator, label.label) == ("item-003", "ann", "insufficient")
    assert (label.reason, label.origin) == ("too dark", "page")
    assert 'data-done="1"' in answer.json()["data"][0]
    undone = _press(client, "p2r-undo", "ann", "item-003").json()["data"]
    assert 'data-item="item-003"' in undone[0]
    assert undone[1] == "too dark"
    assert "ann" not in {one.annotator for one in store.labels()}


def test_a_row_of_another_audit_is_refused_on_the_page(
    client: TestClient, store: AuditStore
) -> None:
    """A page of another audit, left open on the same port."""
    before = store.labels(current_only=False)
    answer = _press(client, "p2r-sufficient", "ann", "item-of-another-audit")
    assert answer.status_code == 500
    assert "Not saved: this page shows a row of another audit" in answer.json()["error"]
    assert store.labels(current_only=False) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:7860"}, 403),
        ({"host": "127.0.0.1.evil.example:7860"}, 403),
        ({"origin": ORIGIN}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_this_machine_and_this_page_are_answered(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    for path in ("/", "/rows/0/frames"):
        assert client.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x.hf.space/", "/gradio_api/upload"],
)
def test_gradios_doors_for_files_and_other_servers_are_closed(
    client: TestClient, path: str
) -> None:
    assert client.get(path).status_code == 403
    assert client.post(path).status_code == 403


def test_every_answer_has_a_policy_that_lets_nothing_in_from_outside(client: TestClient) -> None:
    for path in ("/", "/config", "/rows/0/frames", "/rows/0/media/0", "/theme.css"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert not re.search(r"https?:|\*|script-src[^;]*unsafe-inline", policy)


def test_each_script_of_the_page_is_named_by_the_policy_of_this_answer(
    client: TestClient,
) -> None:
    answers = [client.get("/"), client.get("/")]
    nonces = []
    for answer in answers:
        match = re.search(r"'nonce-([\w-]+)'", answer.headers["content-security-policy"])
        assert match
        scripts = [attrs for tag, attrs in Tags(answer.text).tags if tag == "script"]
        assert scripts
        assert {attrs.get("nonce") for attrs in scripts} == {match.group(1)}
        nonces.append(match.group(1))
    assert nonces[0] != nonces[1]


def test_gradio_runs_without_telemetry_and_what_else_calls_out(client: TestClient) -> None:
    config = json.loads(client.get("/config").text)
    assert config["analytics_enabled"] is False
    assert config["footer_links"] == []
    assert not config.get("is_space")
    fonts = client.get("/theme.css").text
    assert "url(http" not in fonts.replace("'", "").replace('"', "")
