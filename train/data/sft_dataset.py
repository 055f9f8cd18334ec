"""From the rows of a dataset to training rows: prompt tokens, and the trace as completion.

The completion is tokenised separately from the prompt, as it is while sampling, and ends with the
token that the chat template writes after an answer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cli.config import UsageError
from media.frames import MediaError
from schemas.dataset_rows import question_of_row
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.serialization import content_id
from schemas.traces import (
    TEMPLATES,
    Trace,
    TraceError,
    TraceTemplate,
    parse_trace,
    render_trace,
)
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import PromptText, VideoInputs

_NAMED = 5
_HELD_OUT_AT_MOST = 0.05
_ENDING_PROBE = "answer"


@dataclass(frozen=True)
class SftRow:
    """One question and its target trace."""

    question: VideoQuestion
    target: str


@dataclass(frozen=True)
class TokenRow:
    """A row as tokens; its media are decoded when its batch is prepared."""

    prompt: PromptText
    completion_ids: "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class LengthReport:
    """Tokens per row, prompt and media included; and the rows dropped for their length."""

    max_length: int | None
    num_rows: int
    longest: int
    median_completion: int
    longest_completion: int
    dropped: tuple[str, ...]

    def sentence(self) -> str:
        """For the screen and the report."""
        limit = "no limit" if self.max_length is None else f"limit {self.max_length:,}"
        text = (
            f"lengths ({limit}): at most {self.longest:,} tokens with the largest media that the"
            f" frame settings allow, completions {self.median_completion:,} (median) to"
            f" {self.longest_completion:,};"
            f" {len(self.dropped):,} of {self.num_rows:,} rows are longer and were dropped, none"
            " was cut"
        )
        return text + (f": {_some(self.dropped)}" if self.dropped else "")


def dataset_template(rows: Sequence[Mapping[str, Any]], name: str) -> TraceTemplate:
    """The template called `name`, or for "auto" the one that the dataset's `prompt_id` belongs to.

    Raises UsageError where the prompt ids are not those of one shipped template.
    """
    if name != "auto":
        return TEMPLATES[name]
    ids = {row.get("prompt_id") for row in rows}
    question = question_of_row(rows[0])
    for template in TEMPLATES.values():
        known = task_prompt(question, template.name, duration_seconds=1.0, num_frames=1).prompt_id
        if ids == {known}:
            return template
    raise UsageError(
        f"the dataset's prompt ids ({_some(sorted(map(str, ids)))}) are not those of one template"
        f" shipped here; name it with --template ({', '.join(TEMPLATES)})"
    )


def sft_rows(
    rows: Iterable[Mapping[str, Any]], template: TraceTemplate, *, target: str
) -> list[SftRow]:
    """Questions and target traces; `target` "gold" puts the ground truth for the teacher's answer.

    Raises UsageError for a row whose trace or answer does not fit the template.
    """
    result = []
    for number, row in enumerate(rows):
        question = question_of_row(row)
        try:
            texts = _texts(row["output"], template)
            if target == "gold":
                texts["answer"] = question.solution
            ordered = tuple(texts[segment.tag] for segment in template.segments)
            trace = render_trace(Trace(template, ordered))
        except (TraceError, KeyError) as error:
            raise UsageError(
                f"row {number} of the dataset (question {row['question_id']}) has no trace of the"
                f" template {template.name!r}: {error}"
            ) from None
        result.append(SftRow(question, trace))
    return result


def _texts(output: str, template: TraceTemplate) -> dict[str, str]:
    """The segments of a trace by tag; it may follow any shipped template that has these tags."""
    wanted = {segment.tag for segment in template.segments}
    fault: TraceError | None = None
    for candidate in (template, *TEMPLATES.values()):
        if wanted <= {segment.tag for segment in candidate.segments}:
            try:
                trace = parse_trace(output, candidate)
            except TraceError as error:
                fault = fault or error
                continue
            return dict(zip((one.tag for one in candidate.segments), trace.texts, strict=True))
    assert fault is not None
    raise fault


def refuse_unusable_files(
    questions: Sequence[VideoQuestion], loader: FrameLoader, *, decode: bool
) -> None:
    """Check every file before training starts. Raises UsageError that names the unusable ones."""
    refs = list(dict.fromkeys(ref for each in questions for ref in each.media))
    complaints: list[str] = []
    for ref in refs:
        try:
            loader.check(ref)
            if decode:
                loader.load(ref)
        except MediaError as error:
            complaints.append(str(error))
    if complaints:
        raise UsageError(
            f"{len(complaints)} of the dataset's {len(refs)} files cannot be used, and no row is"
            f" trained on without its video: {_some(complaints)}; fix --media-root or the dataset"
        )


def hold_out(rows: Sequence[SftRow], count: int, seed: int) -> tuple[list[SftRow], list[SftRow]]:
    """(rows to train on, held-out rows): whole clips, about `count` rows, at most 5 in 100.

    The clips are chosen by `seed` and their paths; the order of rows has no influence.
    """
    wanted = min(count, int(len(rows) * _HELD_OUT_AT_MOST))
    clips = Counter(_clip(row) for row in rows)
    out: set[str] = set()
    num_out = 0
    for clip in sorted(clips, key=lambda path: content_id("held-out", [seed, path])):
        if num_out + clips[clip] <= wanted:
            out.add(clip)
            num_out += clips[clip]
    return (
        [row for row in rows if _clip(row) not in out],
        [row for row in rows if _clip(row) in out],
    )


def tokenised(rows: Sequence[SftRow], inputs: VideoInputs) -> list[TokenRow]:
    """Rows as tokens; each completion includes its end token."""
    end = end_token_id(inputs)
    targets = [inputs.plain(row.target) for row in rows]
    completions = inputs.tokenizer(targets, add_special_tokens=False)["input_ids"] if rows else []
    return [
        TokenRow(inputs.text(row.question), np.array([*ids, end]))
        for row, ids in zip(rows, completions, strict=True)
    ]


def end_token_id(inputs: VideoInputs) -> int:
    """The token that the model's chat template writes after an answer. Raises UsageError."""
    answer = {"role": "assistant", "content": [{"type": "text", "text": _ENDING_PROBE}]}
    question = {"role": "user", "content": [{"type": "text", "text": "question"}]}
    chat = inputs.processor.apply_chat_template([question, answer], tokenize=False)
    ending = chat.rpartition(_ENDING_PROBE)[2]
    ids: list[int] = inputs.tokenizer(ending, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] not in inputs.tokenizer.all_special_ids:
        raise UsageError(
            f"the model's chat template writes {ending!r} after an answer, which begins with no"
            " special token: an answer would have no end; give an instruction-tuned model"
        )
    return ids[0]


def within_length(
    rows: Sequence[TokenRow], names: Sequence[str], inputs: VideoInputs, max_length: int | None
) -> tuple[list[int], LengthReport]:
    """Places of the rows that are short enough, and the report, which names the others.

    Text tokens are counted. Media count with the most tokens that the frame settings allow; only
    where a row would then be too long are its files decoded.
    """
    kept, dropped, longest = [], [], 0
    for place, (row, name) in enumerate(zip(rows, names, strict=True)):
        text = len(row.prompt.ids) - len(row.prompt.media) + len(row.completion_ids)
        length = text + sum(inputs.most_vision_tokens(ref) for ref in row.prompt.media)
        if max_length is not None and length > max_length:
            (prompt,) = inputs.prompts([row.prompt])
            length = prompt["input_ids"].shape[1] + len(row.completion_ids)
            if length > max_length:
                dropped.append(f"{name} ({length:,} tokens)")
                continue
        longest = max(longest, length)
        kept.append(place)
    completions = sorted(len(row.completion_ids) for row in rows)
    return kept, LengthReport(
        max_length=max_length,
        num_rows=len(rows),
        longest=longest,
        median_completion=completions[len(completions) // 2] if completions else 0,
        longest_completion=completions[-1] if completions else 0,
        dropped=tuple(dropped),
    )


def _clip(row: SftRow) -> str:
    media = row.question.media
    return next((ref.path for ref in media if ref.kind == "video"), media[0].path)


def _some(texts: Sequence[str]) -> str:
    shown = "; ".join(texts[:_NAMED])
    more = len(texts) - _NAMED
    return f"{shown}; and {more} more" if more > 0 else shown
