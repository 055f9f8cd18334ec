"""The labelling page in a real browser: by keyboard, through kills, by two people at once."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from helpers.browser import Browser, open_browser, require_chromium
from helpers.label_server import LabelServer
from helpers.labelled_audit import HOSTILE, JUDGES_SIDE, make_audit, make_media
from selenium.webdriver.common.keys import Keys

from judges.audits.store import AuditLabel, AuditStore
from schemas.runs import start_run

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(600)]

KEY_OF = {"sufficient": "s", "insufficient": "i", "unsure": "u"}
SHOWN = "document.querySelector('.p2r-card')?.dataset"
REASON = "document.querySelector('#p2r-reason textarea, #p2r-reason input')"
MEDIA = "document.querySelector('.p2r-frames img, .p2r-broken')"


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    require_chromium()
    return make_audit(tmp_path / "audit", make_media(tmp_path / "media"))


@pytest.fixture
def server(tmp_path: Path, audit: Path) -> Iterator[LabelServer]:
    (tmp_path / "server").mkdir()
    server = LabelServer(tmp_path / "server", audit, "--frames", "uniform:4")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _begin(browser: Browser, server: LabelServer, name: str) -> None:
    """Give the name as a person does, and wait for the first row."""
    browser.open(server.url)
    browser.wait_for("document.querySelector('#p2r-name textarea, #p2r-name input')")
    browser.run("document.querySelector('#p2r-name textarea, #p2r-name input').focus()")
    browser.press(name, Keys.ENTER)
    browser.wait_for(f"{SHOWN}?.item")


def _press(browser: Browser, key: str) -> None:
    """Press a key and wait until the page shows what it led to."""
    before = browser.run(f"{SHOWN}.shown")
    browser.press(key)
    browser.wait_for(f"{SHOWN}.shown !== {before!r}")


def _label_with_reason(browser: Browser, key: str, reason: str) -> None:
    row = browser.run(f"{SHOWN}.item")
    browser.press("r")
    browser.press(reason)
    assert browser.run(f"{SHOWN}.item") == row  # no letter of the reason was a key
    assert browser.run(f"{REASON}.value") == reason
    browser.press(Keys.ENTER)
    _press(browser, key)
    assert browser.run(f"{REASON}.value") == ""


def _stored(audit: Path) -> list[AuditLabel]:
    with AuditStore.open(audit, start_run("look", {})) as store:
        return store.labels()


def _expected_label(row: int) -> str:
    return ("sufficient", "insufficient", "unsure")[row % 3]


def test_twenty_rows_by_keyboard_with_kills_in_the_middle_lose_nothing(
    tmp_path: Path, audit: Path, server: LabelServer
) -> None:
    with open_browser(tmp_path / "profile") as browser:
        _begin(browser, server, "Ann  Lee")
        for row in range(8):
            assert browser.run(f"{SHOWN}.item") == f"item-{row:03d}"
            assert browser.run(f"{SHOWN}.done") == str(row)
            if row == 5:
                _label_with_reason(browser, KEY_OF[_expected_label(row)], "is it us? zzz")
            else:
                _press(browser, KEY_OF[_expected_label(row)])

        server.kill()  # between two labels: everything that was shown as saved is there
        browser.press("s")
        browser.wait_for("document.body.innerText.includes('Connection to the server was lost')")
        assert browser.run(f"{SHOWN}.item") == "item-008"  # not taken for labelled
        before = browser.run(f"{SHOWN}.shown")
        server.start()
        browser.wait_for(f"{SHOWN} && {SHOWN}.shown !== {before!r}")  # it comes back by itself
        assert browser.run(f"{SHOWN}.done") == "8"

        row = 8
        browser.press(KEY_OF[_expected_label(row)])
        server.kill()  # at once: this label is stored or asked for again, never half
        server.start()
        browser.open(f"{server.url}?annotator={quote('Ann Lee')}")
        browser.wait_for(f"{SHOWN}?.item")
        row = int(browser.run(f"{SHOWN}.done"))
        assert row in (8, 9)
        assert browser.run(f"{SHOWN}.item") == f"item-{row:03d}"
        for number in range(row, 20):
            _press(browser, KEY_OF[_expected_label(number)])
        assert "All 20 rows are labelled." in browser.run("document.body.innerText")
        _press(browser, "z")  # the last one was a slip
        assert browser.run(f"{SHOWN}.item") == "item-019"
        _press(browser, Keys.BACKSPACE)
        assert browser.run(f"{SHOWN}.item") == "item-018"
        _press(browser, KEY_OF[_expected_label(18)])
        _press(browser, KEY_OF[_expected_label(19)])
        browser.screenshot(tmp_path / "done.png")

        addresses = [urlsplit(one) for one in browser.requested_addresses()]
        hosts = {one.netloc for one in addresses if one.scheme not in ("data", "about")}
        assert hosts == {f"127.0.0.1:{server.port}"}
        # A killed server's requests fail; a script that fails or is refused reads otherwise.
        killed = "Failed to load resource: net::ERR_"
        assert not [one for one in browser.complaints() if killed not in one]
        assert server.stop() == 0  # though a page is open; everybody who began has all rows
    assert "Ann Lee: 20 of 20 rows labelled" in server.said()
    assert server.calls_out() == ""

    labels = _stored(audit)
    assert {one.item_id: one.label for one in labels} == {
        f"item-{row:03d}": _expected_label(row) for row in range(20)
    }
    assert len(labels) == 20
    assert {one.annotator for one in labels} == {"Ann Lee"}
    assert [one.reason for one in labels if one.reason] == ["is it us? zzz"]
    assert next(one.item_id for one in labels if one.reason) == "item-005"
    assert [one.labelled_at for one in labels] == sorted(one.labelled_at for one in labels)


def test_two_annotators_at_once_do_not_overwrite_each_other(
    tmp_path: Path, audit: Path, server: LabelServer
) -> None:
    with open_browser(tmp_path / "one") as one, open_browser(tmp_path / "two") as two:
        _begin(one, server, "ann")
        _begin(two, server, "bob")
        for row in range(6):
            # Both keys are on their way before either answer is waited for.
            before = [window.run(f"{SHOWN}.shown") for window in (one, two)]
            one.press("s")
            two.press("i" if row % 2 else "u")
            for window, shown in zip((one, two), before, strict=True):
                window.wait_for(f"{SHOWN}.shown !== {shown!r}")
                assert window.run(f"{SHOWN}.done") == str(row + 1)
        _press(two, "z")
        assert one.run(f"{SHOWN}.done") == "6"
        assert two.run(f"{SHOWN}.done") == "5"
    server.kill()
    stored = {(label.annotator, label.item_id): label.label for label in _stored(audit)}
    assert stored == {("ann", f"item-{row:03d}"): "sufficient" for row in range(6)} | {
        ("bob", f"item-{row:03d}"): "insufficient" if row % 2 else "unsure" for row in range(5)
    }


def test_one_row_shows_its_video_and_hostile_texts_and_broken_media_do_no_harm(
    tmp_path: Path, audit: Path, server: LabelServer
) -> None:
    with open_browser(tmp_path / "profile") as browser:
        _begin(browser, server, "ann")
        browser.wait_for(MEDIA)
        browser.wait_for("document.querySelector('.p2r-media video').readyState > 0")
        times = browser.run(
            "[...document.querySelectorAll('.p2r-frames time')].map(t => t.innerText)"
        )
        assert times == ["0.2 s", "0.7 s", "1.2 s", "1.7 s"]
        browser.run("document.querySelectorAll('.p2r-frames button')[2].click()")
        sought = browser.wait_for("document.querySelector('.p2r-media video').currentTime")
        assert sought == pytest.approx(1.2)
        browser.press(" ")
        browser.wait_for("!document.querySelector('.p2r-media video').paused")
        browser.press(" ")
        browser.wait_for("document.querySelector('.p2r-media video').paused")
        browser.screenshot(tmp_path / "row.png")

        browser.press("siu")  # in one breath: one row was seen, the first key labels it
        browser.wait_for(f"{SHOWN}.item === 'item-001'")
        browser.wait_for(MEDIA)
        assert browser.run(f"{SHOWN}.done") == "1"
        said = browser.run("document.querySelector('.p2r-observation').textContent")
        assert said == HOSTILE
        assert HOSTILE in browser.run("document.querySelector('.p2r-question').textContent")
        assert browser.run("document.title") == "Judge audit: labels"
        page = browser.run("document.documentElement.outerHTML")
        assert not [word for word in JUDGES_SIDE if word in page]
        browser.screenshot(tmp_path / "hostile.png")

        _press(browser, "i")
        browser.wait_for(MEDIA)
        told = browser.run("document.querySelector('.p2r-broken').innerText")
        assert "This video cannot be shown." in told
        assert "label the row unsure" in told
        browser.screenshot(tmp_path / "broken.png")
        _press(browser, "u")
        assert browser.run(f"{SHOWN}.item") == "item-003"
        assert not browser.complaints()
    server.kill()
    assert [label.label for label in _stored(audit)] == ["sufficient", "insufficient", "unsure"]


def test_every_button_can_be_read_on_a_phone(tmp_path: Path, server: LabelServer) -> None:
    with open_browser(tmp_path / "profile") as browser:
        browser.narrow(400)
        _begin(browser, server, "ann")
        cut = browser.run(
            "[...document.querySelectorAll('#p2r-bar button')].filter(one => one.offsetWidth && ("
            "one.scrollWidth > one.clientWidth || one.getBoundingClientRect().right > 400"
            " || one.getBoundingClientRect().left < 0)).map(one => one.innerText)"
        )
        assert cut == []
        assert browser.run("document.documentElement.scrollWidth") <= 400
