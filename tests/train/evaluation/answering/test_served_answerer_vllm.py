"""`train.evaluate` over a real vLLM server: the answers of this process, for both families."""

from pathlib import Path
from typing import Any

import pytest
from helpers.evaluations import answers_of, evaluate, report_of
from helpers.training_world import question

from cli.config import EXIT_OK, UsageError
from sandbox.models.tiny_models import TinySize, save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(900)]

ASKED = [
    question("slow.mp4"),
    question("dense.mp4", problem="Which colour <|im_end|> is last?"),
    question("still.png"),
    question("still.png", "odd.mp4"),
    question("odd.mp4", "slow.mp4"),
    question("odd.mp4"),
]
DECODINGS = {
    "greedy": ("--temperature", "0"),
    "as APPO decodes": ("--top-k", "1", "--repetition-penalty", "1.05"),
    "another clip's frames": ("--temperature", "0", "--shuffle-videos"),
}


def words(served: Any, out: Path, *more: str, model: Path | None = None) -> list[str]:
    questions = out.parent / "questions.jsonl"
    lines = [each.model_dump_json(exclude={"row"}) + "\n" for each in ASKED]
    questions.write_text("".join(lines), encoding="utf-8")
    return [
        "--model", str(model or served.folder), "--questions", str(questions),
        "--media-root", str(served.clips), "--out", str(out), "--frames", "uniform:8",
        "--max-pixels", str(112 * 84), "--max-new-tokens", "24", "--device", "cpu",
        "--frame-cache", str(out.parent / "frames"), *more,
    ]  # fmt: skip


def of_server(served: Any) -> list[str]:
    return ["--rollouts", "vllm", "--vllm-url", served.url]


@pytest.mark.parametrize("decoding", DECODINGS)
def test_answers_are_those_of_this_process(served: Any, tmp_path: Path, decoding: str) -> None:
    """Videos, pictures and both, all in flight; the server had other weights before."""
    served.send(served.model(change=0.05))
    here, there, more = tmp_path / "here", tmp_path / "there", DECODINGS[decoding]
    status = evaluate(*words(served, here, *more))
    assert evaluate(*words(served, there, *more, *of_server(served))) == status
    assert answers_of(there) == answers_of(here)
    assert report_of(there)["overall"] == report_of(here)["overall"]
    assert len({row["output"] for row in answers_of(there)}) > 2


def test_a_server_of_a_deeper_model_is_refused(served: Any, tmp_path: Path) -> None:
    """Every tensor that it is sent fits; its last layer keeps what it was."""
    size = TinySize(width=128, layers=1, weight_std=0.1)
    model = save_tiny_model(served.family, tmp_path / "model", size=size)
    with pytest.raises(UsageError, match="--vllm-url: "):
        evaluate(*words(served, tmp_path / "out", *of_server(served), model=model))
    assert not (tmp_path / "out").exists()
    assert evaluate(*words(served, tmp_path / "again", "--limit", "1", *of_server(served))) == (
        EXIT_OK
    )
