"""`index.html`: what was seen, written and read, in one file that loads nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import open_browser, require_chromium
from helpers.evaluations import OPTIONS, evaluate, write_world

ALARM = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
SHOWN = "[...document.querySelectorAll('article')].filter((a) => !a.hidden).map((a) => a.id)"
OUTPUTS = [
    f"<observation>Red.{ALARM}</observation> <think>So A.</think><answer>A</answer>",
    "<observation>Blue.</observation> <think>Therefore, it is blue.</think><answer>C</answer>",
    "no tags at all, and nothing that would be an answer to this: the clip goes on and on, "
    "without end",
    "<observation>Late.</observation> <think>So B.</think><answer>B</answer>",
]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Four answers about clips: right, wrong with a mismatch, unparsed, about a missing file."""
    write_world(tmp_path)
    rows: list[dict[str, Any]] = [
        {
            "question": {
                "problem_id": f"q{number}",
                "problem": f"Which colour? {ALARM if number == 1 else ''}",
                "options": OPTIONS,
                "video": f"clip_{number}.mp4" if number < 3 else "gone.mp4",
                "data_source": f"source {number % 2}",
            },
            "ground_truth": "A",
            "model_output": output,
        }
        for number, output in enumerate(OUTPUTS)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def page_of(answers: Path, *options: str) -> str:
    out = answers.parent / "out"
    root = str(answers.parent)
    assert evaluate(
        "--predictions", str(answers), "--media-root", root, "--out", str(out), "--frames",
        "uniform:12", "--frame-cache", str(answers.parent / "frames"), *options,
    ) == 0  # fmt: skip
    return (out / "index.html").read_text("utf-8")


def test_frames_segments_and_verdicts_are_shown_and_nothing_of_the_data_is_markup(
    answers: Path,
) -> None:
    page = page_of(answers)
    # 8 frames at most of each clip of 8, three clips; the missing one says so.
    assert page.count('src="data:image/jpeg;base64,') == 3 * 8
    assert "Not shown: missing_file" in page
    assert "4.0 s, 8 of the 8 frames" in page
    assert page.count('<span class="segment observation">&lt;observation&gt;') == 3
    assert page.count('<span class="segment outside">no tags at all') == 1
    assert "reasoning concludes B" in page
    assert re.search(r"25 % \(1\)", page)
    assert "<img src=x" not in page
    assert page.count("<script>") == 1
    assert "default-src &#39;none&#39;" in page
    assert "4 of 4 answers." in page


def test_what_the_page_leaves_out_is_told(answers: Path) -> None:
    page = page_of(answers, "--page-rows", "2", "--page-megabytes", "0.001")
    assert page.count("<article") == 2
    assert "q0" in page
    assert "id q2" in page  # evenly spread: the first and the third
    assert "2 of 4 answers, evenly spread (--page-rows); some are without frames" in page
    assert "data:image" not in page.split("<body>")[1]


@pytest.mark.heavy
def test_answers_that_exist_are_scored_and_shown_without_torch(answers: Path) -> None:
    program = (
        "import sys; from train.evaluate import main; main(sys.argv[1:]);"
        "sys.exit('torch' in sys.modules or 'duckdb' in sys.modules)"
    )
    options = ["--predictions", str(answers), "--media-root", str(answers.parent)]
    options += ["--frame-cache", str(answers.parent / "frames")]
    options += ["--out", str(answers.parent / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def choose(name: str, text: str) -> str:
    """JavaScript that chooses the option with this text, as a person would."""
    return f"""(() => {{
        const select = document.querySelector('select[name={name}]');
        select.value = [...select.options].find((one) => one.text.startsWith({text!r})).value;
        select.dispatchEvent(new Event('input', {{ bubbles: true }}));
        return true;
    }})()"""


@pytest.mark.slow
@pytest.mark.heavy
def test_answers_are_filtered_in_a_browser_that_asks_for_nothing(
    answers: Path, tmp_path: Path
) -> None:
    require_chromium()
    page_of(answers)
    with open_browser(tmp_path / "profile") as browser:
        browser.open((answers.parent / "out" / "index.html").as_uri())
        assert browser.run("document.title") == "Answers that exist: 25 %"
        assert len(browser.run(SHOWN)) == 4
        assert browser.run(choose("answer", "wrong"))
        assert len(browser.run(SHOWN)) == 2
        assert browser.run(choose("mismatch", "yes"))
        assert len(browser.run(SHOWN)) == 1
        assert browser.run("document.querySelector('output').textContent") == "1 of 4 shown"
        assert browser.run(choose("mismatch", "any"))
        assert browser.run(choose("answer", "any"))
        assert browser.run(choose("source", "source 0"))
        assert len(browser.run(SHOWN)) == 2
        pictures = "[...document.querySelectorAll('article img')].filter((i) => i.naturalWidth > 0)"
        browser.wait_for(f"{pictures}.length >= 8")
        asked = browser.requested_addresses()
        assert [one for one in asked if not one.startswith(("file:", "data:"))] == []
        assert browser.run("document.title") == "Answers that exist: 25 %"
        assert browser.complaints() == []
