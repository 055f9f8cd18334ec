"""The page of answers in a real browser, on the screen of a phone."""

import json
from pathlib import Path

import pytest
from helpers.browser import open_browser, require_chromium

from train.evaluate import main

pytestmark = [pytest.mark.heavy]

LONG = "a_folder_of_a_long_name/and_a_clip_of_a_name_without_any_blank_that_is_longer_than_a_phone"


def test_the_page_is_no_wider_than_a_phone(tmp_path: Path) -> None:
    require_chromium()
    rows = [
        {
            "question": {
                "problem_id": f"{LONG}_{number}",
                "problem": f"Which of {LONG} is number {number}?",
                "options": [f"A. {LONG}", "B. two"],
                "solution": "A",
                "problem_type": "multiple choice",
                "data_source": LONG,
                "path": f"{LONG}_{number}.mp4",
                "data_type": "video",
            },
            "ground_truth": "A",
            "model_output": f"<think>{LONG}</think><answer>A</answer>",
        }
        for number in range(3)
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["--predictions", str(file), "--out", str(tmp_path / "out")]) == 0
    with open_browser(tmp_path / "profile") as browser:
        browser.narrow(400)
        browser.open((tmp_path / "out" / "index.html").as_uri())
        browser.wait_for("document.querySelectorAll('article').length === 3")
        assert browser.run("document.documentElement.scrollWidth") <= 400
        outside = "one.getBoundingClientRect().right > 401 && !one.closest('.scroll')"
        wide = f"[...document.querySelectorAll('body *')].filter(one => {outside})"
        assert browser.run(f"{wide}.map(one => one.tagName)") == []
