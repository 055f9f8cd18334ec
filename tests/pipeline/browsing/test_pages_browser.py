"""The pages of a build in a real browser: found across pages, filtered, played, on a phone too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browsed_build import HOSTILE_ROW, browse, make_build
from helpers.browser import Browser, open_browser, require_chromium
from helpers.built_ledger import question

pytestmark = [pytest.mark.heavy]

SHOWN = "[...document.querySelectorAll('article')].filter(one => !one.hidden).length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_chromium()
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = make_build(tmp_path_factory.mktemp("browsed"))
    browse(out, "--rows-per-page", "10")
    return out / "browse"


def choose(browser: Browser, name: str, text: str) -> None:
    """Take the option of a select whose text begins with `text`, as a person does."""
    browser.run(
        f"(() => {{ const select = document.querySelector('select[name={name}]');"
        f" select.value = [...select.options].find(one => one.text.startsWith('{text}')).value;"
        " select.dispatchEvent(new Event('input', {bubbles: true})); return true; })()"
    )


def found_rows(browser: Browser) -> list[int]:
    rows = "[...document.querySelectorAll('#found tbody tr')].map(one => one.cells[0].innerText)"
    return [int(row) for row in browser.run(rows)]


def test_rows_of_all_pages_are_found_by_reason_and_text(browser: Browser, pages: Path) -> None:
    browser.open((pages / "index.html").as_uri())
    browser.wait_for("document.querySelector('#find output').textContent === '32 of 32 rows'")
    choose(browser, "step", "verify")
    assert found_rows(browser) == [7, 13]
    choose(browser, "reason", "malformed_trace")
    assert found_rows(browser) == [13]
    browser.open("about:blank")
    browser.open((pages / "index.html").as_uri() + "#text=clip+21%3F")
    assert found_rows(browser) == [21]
    browser.driver.find_element("css selector", "#found a").click()
    assert browser.run("location.pathname").endswith("rows-00003.html")
    assert browser.run("document.querySelector('article:target').id") == question(21).question_id
    assert browser.complaints() == []


def test_a_page_filters_its_rows_and_runs_nothing_of_others(browser: Browser, pages: Path) -> None:
    browser.requested_addresses()
    browser.open((pages / "rows-00001.html").as_uri())
    browser.wait_for(f"{SHOWN} === 10")
    choose(browser, "step", "kept")
    assert browser.run(SHOWN) == 7  # of rows 0 to 9 all but 5, 7 and 9
    browser.open("about:blank")
    browser.open((pages / "rows-00004.html").as_uri())
    browser.wait_for(f"{SHOWN} === 2")
    assert browser.run("document.title") == "Rows of out: rows 31 to 32"
    assert browser.run(f"document.body.innerText.includes('Row {HOSTILE_ROW}')")
    asked_for = [address for address in browser.requested_addresses() if "about:" not in address]
    assert all(address.startswith(("file:", "data:")) for address in asked_for)
    assert browser.complaints() == []


def test_a_clip_plays_in_the_page(browser: Browser, pages: Path) -> None:
    browser.open((pages / "rows-00001.html").as_uri())
    browser.run("document.querySelector('video').closest('details').open = true")
    browser.run("document.querySelector('video').play(), true")
    browser.wait_for("document.querySelector('video').currentTime > 0.2")
    assert browser.run("document.querySelector('video').videoWidth") == 96
    assert browser.complaints() == []


def test_no_page_is_wider_than_a_phone(browser: Browser, pages: Path) -> None:
    browser.narrow(400)
    for name in ("index.html", "rows-00001.html", "rows-00004.html", "../index.html"):
        browser.open((pages / name).resolve().as_uri())
        assert browser.run("document.documentElement.scrollWidth") <= 400, name
