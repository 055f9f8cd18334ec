"""The index of a run's rollouts in a real browser, on a phone: its links, and no wider than it."""

import json
from pathlib import Path

import pytest
from helpers.browser import open_browser, require_chromium
from helpers.html_tags import walk_pages

from cli.html_page import write_page
from train.monitoring.rollout_index import INDEX, page_name, write_rollout_index

pytestmark = [pytest.mark.heavy]

METRICS = ("rewards/perception/total", "rewards/reasoning/total", "rewards/reasoning/accuracy",
           "length/completion", "groups/flat_reasoning", "kl")  # fmt: skip


def make_run(out: Path, steps: int) -> None:
    """A run that has pages of some steps, as far as its index knows them."""
    (out / "pages").mkdir(parents=True)
    rows = [{"step": step, **dict.fromkeys(METRICS, step / 7)} for step in range(1, steps + 1)]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = out / "page.html.jinja"
    template.write_text('{% extends "html_page.html.jinja" %}{% block body %}{% endblock %}')
    for step in range(1, steps + 1):
        write_page(out / "pages" / page_name(step), template, {}, title=f"step {step}")
    template.unlink()
    write_rollout_index(out)


def test_the_index_leads_to_each_step_and_to_the_run_on_a_phone(tmp_path: Path) -> None:
    require_chromium()
    out = tmp_path / "run"
    make_run(out, 12)
    pages, broken = walk_pages(out / "index.html")
    assert not broken
    assert len(pages) == 14  # the run, the index, twelve steps
    with open_browser(tmp_path / "profile") as browser:
        browser.narrow(400)
        browser.open((out / "pages" / INDEX).as_uri())
        assert browser.run("document.documentElement.scrollWidth") <= 400
        assert browser.run("document.querySelectorAll('tbody tr').length") == 12
        heights = "[...document.querySelectorAll('tbody th')].map(one => one.offsetHeight)"
        assert max(browser.run(heights)) < 40, "a step's name stands on one line"
        links = "[...document.links].filter(one => one.textContent === '{}')[0].click()"
        browser.run(f"({links.format('step 7')}, true)")
        browser.wait_for("document.title === 'step 7'")
        browser.open((out / "pages" / INDEX).as_uri())
        browser.run(f"({links.format('the run')}, true)")
        browser.wait_for("document.title === 'run'")
        assert browser.complaints() == []
