"""`python -m sandbox.scripted_dataset`: traces of the scripted teacher in any template, unchecked.

`pipeline.build_cot` requests observations, judges them and rejects faulty traces. This command does
none of that: it writes the teacher's reply to each question of a rendered world, with the columns
of a built dataset and no judge. It makes the dataset for fine-tuning in the `grounding` template;
its time spans are the truth, unless the teacher's spec has `late`.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cli.config import EXIT_OK, UsageError, parse_command, run_command
from cli.option_groups import LimitOptions, MediaRootOptions, OutputOptions, TemplateOptions
from cli.output_folder import check_folder, claim_folder
from judges.backends.base import BackendUnavailableError, ChatRequest, TextPart
from judges.backends.registry import BackendOptions
from judges.scoring.answer_score import score_answer
from sandbox.oracle import open_backend
from sandbox.world.clips import NOTICE
from sandbox.world.rendered import RenderedWorld
from schemas.dataset_rows import dataset_row
from schemas.prompting import task_prompt
from schemas.traces import TEMPLATES, parse_trace

PROG = "sandbox.scripted_dataset"
_FRAMES = 16
_MOST_TOKENS = 1024
_NOT_JUDGED = "nobody: a scripted dataset"


class ScriptedConfig(
    MediaRootOptions[Path],
    OutputOptions[Path],
    TemplateOptions,
    LimitOptions,
    defaults={"template": "grounding"},
    notes={"media_root": "Here: the folder of a rendered world, whose clips are asked about."},
    group="judge",
    example="--media-root world --output-dir out/scripted",
):
    """Options of `sandbox.scripted_dataset`."""

    teacher: str = "oracle:1"
    """The scripted teacher with its error rates, as for pipeline.build_cot."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask the teacher every question and write the traces."""
    from pipeline.exports.parquet_files import DATASET_SCHEMA, write_parquet

    config = parse_command(
        ScriptedConfig,
        argv,
        prog=PROG,
        description="Write the scripted teacher's traces as a dataset, unchecked.",
    )
    if not config.teacher.startswith("oracle:"):
        raise UsageError(f"--teacher {config.teacher}: expected the sandbox's oracle, oracle:SEED")
    check_folder(config.output_dir, PROG)
    rows = asyncio.run(_rows(config))
    claim_folder(config.output_dir, PROG)
    for old in config.output_dir.glob("*.parquet"):
        old.unlink()
    write_parquet(rows, config.output_dir, DATASET_SCHEMA, notes={"sandbox": NOTICE})
    print(f"{config.output_dir}: {len(rows)} traces of {config.teacher}, not judged ({NOTICE})")
    return EXIT_OK


async def _rows(config: ScriptedConfig) -> list[dict[str, object]]:
    from schemas.samples import AcceptedSample

    world = RenderedWorld(config.media_root)
    frames = min(_FRAMES, world.config.frames)
    shown = {"duration_seconds": float(world.config.cells), "num_frames": frames}
    options = BackendOptions(media_root=config.media_root)
    rest = config.teacher.partition(":")[2]
    teacher = await open_backend(rest, spec=config.teacher, options=options)
    template = TEMPLATES[config.template]
    rows = []
    for question in world.clip_questions(config.limit):
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


if __name__ == "__main__":
    run_command(PROG, main, usage_errors=(BackendUnavailableError,))
