"""The report's page in a real browser: filtered without a server, with nothing asked for."""

from pathlib import Path

import pytest
from helpers.browser import open_browser, require_chromium
from helpers.small_audits import Row, small_audit, verdicts_of

from judges.audits.report.command import ReportConfig, report

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(300)]

SHOWN = "[...document.querySelectorAll('article')].filter((a) => !a.hidden).map((a) => a.id)"
ALARM = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def choose(name: str, text: str) -> str:
    """JavaScript that chooses the option with this text, as a person would."""
    return f"""(() => {{
        const select = document.querySelector('select[name={name}]');
        select.value = [...select.options].find((one) => one.text.startsWith({text!r})).value;
        select.dispatchEvent(new Event('input', {{ bubbles: true }}));
        return true;
    }})()"""


def test_disagreements_are_filtered_and_nothing_of_the_data_runs(tmp_path: Path) -> None:
    require_chromium()
    small_audit(
        tmp_path / "audit",
        [
            Row("yes", {"ada": "i"}, problem=ALARM, observation=ALARM),
            Row("no", {"ada": "s"}, data_source="garden"),
            Row("yes", {"ada": "s", "ben": "i"}),
        ],
        verdicts=verdicts_of("nny", reply=ALARM),
    )
    config = ReportConfig(audit=tmp_path / "audit", widths=(), resamples=200, frames="none")
    assert report(config) == 0
    page = (tmp_path / "audit" / "report.html").as_uri()
    with open_browser(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.run("document.title") == "Judge audit: audit"
        assert sorted(browser.run(SHOWN)) == ["item-0", "item-1", "item-2"]
        assert browser.run("document.querySelector('output').textContent") == "3 of 3 shown"
        assert browser.run(choose("kind", "rejected, but people say sufficient"))
        assert browser.run(SHOWN) == ["item-1"]
        assert browser.run(choose("judge", "claude:one"))
        assert browser.run(SHOWN) == ["item-1"]
        assert browser.run(choose("kind", "accepted, but people say insufficient"))
        assert browser.run(SHOWN) == []  # the judge of the data accepted it, this one did not
        assert browser.run(choose("judge", "oracle:1"))
        assert browser.run(SHOWN) == ["item-0"]
        # What is chosen can be passed on as an address.
        browser.open("about:blank")
        browser.open(f"{page}#kind=people")
        assert browser.run(SHOWN) == ["item-2"]
        # The policy is in force: what the page did not bring with it is not run.
        browser.run(
            "document.body.appendChild(Object.assign(document.createElement('script'),"
            " {textContent: 'document.title = 1'})) && 1"
        )
        assert browser.run("document.title") == "Judge audit: audit"
        asked = [url for url in browser.requested_addresses() if not url.startswith("data:")]
        assert {url.partition("#")[0] for url in asked} <= {page, "about:blank"}
        assert all("Content Security Policy" in words for words in browser.complaints())
