"""`python -m sandbox.scripted_dataset`: traces of the scripted teacher in any template, unchecked.

`pipeline.build_cot` asks for observations, has them judged and rejects what is wrong. This command
does none of that: it writes down what the teacher says to each question of a rendered world, with
the columns of a built dataset and no judge. It is how the `grounding` template gets a dataset to
fine-tune on; the time spans in it are the truth.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from judges.answers import score_answer
from judges.backends.base import BackendUnavailableError, ChatRequest, TextPart
from judges.backends.registry import BackendOptions
from sandbox.observations import World
from sandbox.oracle import open_backend
from sandbox.world import NOTICE
from schemas.annotations import read_questions
from schemas.config import EXIT_OK, Config, UsageError, parse_command, run_command
from schemas.dataset_rows import dataset_row
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, parse_trace

PROG = "sandbox.scripted_dataset"
_FRAMES = 16
_MOST_TOKENS = 1024
_NOT_JUDGED = "nobody: a scripted dataset"


class ScriptedConfig(Config):
    """Options of `sandbox.scripted_dataset`."""

    media_root: Path
    """Folder of a rendered world; all its questions about clips are asked."""
    output_dir: Path
    """Folder for the Parquet files; those of an earlier run are replaced."""
    template: Literal["p2r", "think-answer", "grounding"] = "grounding"
    """Trace template to write."""
    teacher: str = "oracle:1"
    """The scripted teacher with its rates of errors, as for pipeline.build_cot."""
    limit: int | None = Field(None, ge=1)
    """Ask the first N questions only."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask the teacher each question, write down the traces."""
    from pipeline.parquet_files import DATASET_SCHEMA, write_parquet

    config = parse_command(
        ScriptedConfig,
        argv,
        prog=PROG,
        description="Write the scripted teacher's traces as a dataset, unchecked.",
    )
    if not config.teacher.startswith("oracle:"):
        raise UsageError(f"--teacher {config.teacher}: expected the sandbox's oracle, oracle:SEED")
    rows = asyncio.run(_rows(config))
    config.output_dir.mkdir(parents=True, exist_ok=True)
    for old in config.output_dir.glob("*.parquet"):
        old.unlink()
    write_parquet(rows, config.output_dir, DATASET_SCHEMA, notes={"sandbox": NOTICE})
    print(f"{config.output_dir}: {len(rows)} traces of {config.teacher}, not judged ({NOTICE})")
    return EXIT_OK


async def _rows(config: ScriptedConfig) -> list[dict[str, object]]:
    from schemas.ledger import AcceptedSample

    world = World(config.media_root)
    frames = min(_FRAMES, world.config.frames)
    shown = {"duration_seconds": float(world.config.cells), "num_frames": frames}
    options = BackendOptions(media_root=config.media_root)
    rest = config.teacher.partition(":")[2]
    teacher = await open_backend(rest, spec=config.teacher, options=options)
    template = TEMPLATES[config.template]
    rows = []
    for question in _questions(config):
        prompt = task_prompt(question, config.template, **shown)  # type: ignore[arg-type]
        request = ChatRequest(
            parts=(TextPart(prompt.text),),
            max_tokens=_MOST_TOKENS,
            step="generate",
            question_id=question.question_id,
        )
        text = (await teacher.complete(request)).text
        trace = parse_trace(text, template)
        answer = trace.get("answer")
        has_observation = any(segment.tag == "observation" for segment in template.segments)
        sample = AcceptedSample(
            question=question,
            draw=0,
            call_key="",
            output=text,
            observation=trace.get("observation") if has_observation else "",
            think=trace.get("think"),
            answer=answer,
            reward=score_answer(question, answer),
            metric="",
            extracted=answer,
            generator=config.teacher,
            prompt_id=prompt.prompt_id,
            media_id="",
            frame_spec="",
            frame_indices=(),
            frame_times=(),
            judge=_NOT_JUDGED,
            judge_prompt_id="",
            judge_call_key="",
            judge_reply="",
            answer_leak=False,
        )
        rows.append(dataset_row(sample))
    return rows


def _questions(config: ScriptedConfig) -> list[VideoQuestion]:
    rows = read_questions(config.media_root / "questions.json", format="video-r1")
    found = [row for row in rows if isinstance(row, VideoQuestion) and row.data_type == "video"]
    return found[: config.limit]


if __name__ == "__main__":
    run_command(PROG, main, usage_errors=(BackendUnavailableError,))
