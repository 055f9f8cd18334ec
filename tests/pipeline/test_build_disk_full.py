"""A disk that fills up stops the build with one sentence, and loses nothing.

The operating system's limit on the size of a file stands in for the disk: the write fails at the
same places, and no rights are needed to set it.
"""

import json
import random
import resource
import subprocess
from pathlib import Path

import pytest
from helpers.builds import build_command, environment, query

from cli.config import EXIT_ROWS_FAILED, EXIT_STOPPED

NUM_QUESTIONS, TEXT_BYTES, MAX_FILE_BYTES = 400, 20_000, 4_000_000

pytestmark = pytest.mark.heavy


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, resource.RLIM_INFINITY))


def test_a_full_disk_is_one_sentence_and_the_build_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    (tmp_path / "media").mkdir()
    questions = tmp_path / "questions.jsonl"
    draw = random.Random(0)  # text that does not compress
    questions.write_text(
        "\n".join(
            json.dumps(
                {
                    "problem": draw.randbytes(TEXT_BYTES // 2).hex(),
                    "solution": str(number),
                    "media": [{"kind": "image", "path": "gone.png"}],
                    "problem_type": "numerical",
                    "data_source": "none",
                    "problem_id": str(number),
                }
            )
            for number in range(NUM_QUESTIONS)
        )
    )
    out = tmp_path / "out"
    command = build_command(questions, out, media_root=tmp_path / "media")
    url = "http://127.0.0.1:9"
    full = subprocess.run(
        command,
        env=environment(url),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_limit_files,
    )
    assert full.returncode == EXIT_STOPPED, full.stderr[-2000:]
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("pipeline.build_cot: stopped: writing the ledger")
    assert last.endswith("run the same command again")

    roomy = subprocess.run(
        command, env=environment(url), capture_output=True, text=True, check=False
    )
    assert roomy.returncode == EXIT_ROWS_FAILED, roomy.stderr[-2000:]  # every file is missing
    assert query(out, "select count(*) from rejections") == [(NUM_QUESTIONS,)]
