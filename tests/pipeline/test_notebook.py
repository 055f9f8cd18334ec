"""Building and judging as functions, in a running event loop as a notebook has one."""

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from cli.config import UsageError
from pipeline.notebook import build_dataset, judge_observation
from sandbox.clips import main as render
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    sizes = ["--clips", "0", "--stills", "6", "--num-questions", "8", "--seed", "3"]
    assert render(["--output-dir", str(folder), *sizes]) == 0
    return folder


def options(world: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "questions": world / "questions.json",
        "media_root": str(world),
        "generator": "oracle:7",
        "judge": "oracle:7",
        "output_dir": tmp_path / "out",
        "frame_cache": tmp_path / "cache",
        "strip_prefix": (),
    }


async def test_a_build_ends_with_the_commands_status_and_dataset(
    world: Path, tmp_path: Path
) -> None:
    assert await build_dataset(**options(world, tmp_path), limit=5) == 0
    assert await build_dataset(**options(world, tmp_path)) == 0  # resumes, with the rest
    assert pq.read_table(tmp_path / "out" / "dataset").num_rows == 8
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["generator"] == "oracle:7"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"attempts": 0}, "--attempts: expected greater than or equal to 1, got 0"),
        ({"attemps": 2}, "an unknown key 'attemps'; did you mean 'attempts'?"),
        ({"check": True}, "check and dry_run only print something"),
    ],
)
async def test_wrong_options_are_one_sentence_about_the_callers_words(
    more: dict[str, object], sentence: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        await build_dataset(**options(world, tmp_path), **more)
    assert sentence in str(raised.value)
    assert "options.yaml" not in str(raised.value)


def question_of(world: Path) -> VideoQuestion:
    question = next(iter(read_questions(world / "questions.json")))
    assert isinstance(question, VideoQuestion)
    return question


async def test_one_observation_is_judged_once_and_remembered(world: Path, tmp_path: Path) -> None:
    question, ledger = question_of(world), tmp_path / "judge.duckdb"
    for _ in range(2):
        outcome = await judge_observation(
            question, "Nothing is shown.", judge="oracle:7", ledger=ledger, media_root=world
        )
        assert outcome.verdict.verdict == "no"
        assert "cannot be deduced" in outcome.replies[0].reply
    with duckdb.connect(str(ledger), read_only=True) as opened:
        assert opened.execute("select count(*) from calls").fetchone() == (1,)


async def test_a_judge_that_cannot_be_opened_is_one_sentence(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no backend"):
        await judge_observation(
            question_of(world), "It is red.", judge="nobody:1", ledger=tmp_path / "judge.duckdb"
        )
