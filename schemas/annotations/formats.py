"""The table of annotation formats: what `--format` takes, how a layout is recognised and read.

A layout of your own is one row, in a file that `--plugin` imports:

    def my_fields(record):
        return {
            "problem": text_field(record, "ask"),
            "solution": text_field(record, "reply"),
            "media": (("video", text_field(record, "clip")),),
            "problem_type": ProblemType.FREE_FORM,
        }

    register_format(AnnotationFormat(
        "my-layout", "clips of mine", lambda record: "clip" in record, every_file(my_fields),
    ))

`schemas.annotations.fields` reads fields of records; what it raises becomes a row's reason.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.annotations import benchmarks, conversations, grounding, tempcompass, trainers
from schemas.annotations.columns import Columns
from schemas.annotations.fields import Fields, Record
from schemas.annotations.files import read_json_beside
from schemas.annotations.published import (
    NextGqaCsv,
    SeedBenchR1,
    next_gqa_json,
    own_jsonl,
    perception_test,
    perception_test_questions,
    video_r1,
)
from schemas.annotations.records import Layout
from schemas.serialization import CODING_ERRORS, error_words

FieldReader = Callable[[Record], Fields]
"""From a record to the fields of its question; raises FieldError."""

AUTO = "auto"


@dataclass(frozen=True)
class AnnotationFormat:
    """A layout of question files.

    `matches` recognises a record of this layout, for `auto`, in files of `layouts` (empty: all); a
    format of a plugin goes before those of this table. `in_tables` recognises further records, in
    Parquet and Arrow files. `reader_of` returns the reader of a file's records, given the file and
    its layout. `questions_of`, where records hold several questions, splits one. `csv_column` is a
    column by which the header of a CSV file of this layout is known. `variants` are formats that
    this one is also published in: such a file is read as what it is. `key_field` is where a record
    that is a member of one JSON object gets its name in that object.
    """

    name: str
    help: str
    matches: Callable[[Record], bool]
    reader_of: Callable[[Path, Layout], FieldReader]
    questions_of: Callable[[Any], Iterator[Record]] | None = None
    csv_column: str = ""
    variants: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    key_field: str = ""
    in_tables: Callable[[Record], bool] | None = None


FORMATS: dict[str, AnnotationFormat] = {}
"""Formats by the names that `--format` takes, without `auto`."""


def register_format(row: AnnotationFormat) -> None:
    """Add a format. Raises ValueError for a name that is taken."""
    if row.name in format_choices():
        raise ValueError(f"the annotation format {row.name!r} exists already; choose another name")
    FORMATS[row.name] = row


def format_choices() -> dict[str, str]:
    """What `--format` takes, `auto` first, each with what it is."""
    return {AUTO: "by the fields of the first records"} | {
        row.name: row.help for row in FORMATS.values()
    }


def check_format(name: str) -> None:
    """Raise ValueError, which names all formats, for a name that is none."""
    names = format_choices()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown format {name!r}: expected one of {', '.join(names)}{hint}")


def formats_of(record: Record, layout: Layout) -> tuple[str, ...]:
    """The formats that a record fits: of plugins the last one alone, else all of this table.

    Raises ValueError where a format's `matches` fails.
    """
    fitting = [
        row.name
        for row in FORMATS.values()
        if (not row.layouts or layout in row.layouts) and _matches(row, record, layout)
    ]
    added = [name for name in fitting if name not in _OURS]
    return tuple(added[-1:] or fitting)


def the_format(records: Sequence[Record], layout: Layout) -> str | None:
    """The format of a file that begins with these records; None where none fits.

    The first record that fits any decides, those behind it where it fits several. Raises
    ValueError, which names them, where several are left.
    """
    found: tuple[str, ...] = ()
    for record in records:
        fitting = formats_of(record, layout)
        found = tuple(name for name in found if name in fitting) or found or fitting
        if len(found) == 1:
            return found[0]
    if found:
        raise ValueError(
            f"its rows fit {' and '.join(found)}, which read them differently; name one with "
            "--format"
        )
    return None


def _matches(row: AnnotationFormat, record: Record, layout: Layout) -> bool:
    try:
        if layout == "table" and row.in_tables is not None and row.in_tables(record):
            return True
        return row.matches(record)
    except CODING_ERRORS as error:
        raise ValueError(
            f"the format {row.name!r} cannot tell whether a record is its own "
            f"({error_words(error)}); its `matches` gets records of every format"
        ) from error


def csv_columns() -> tuple[str, ...]:
    """Columns by which CSV files of questions are known."""
    return tuple(row.csv_column for row in FORMATS.values() if row.csv_column)


def every_file(fields: FieldReader) -> Callable[[Path, Layout], FieldReader]:
    """For `reader_of`: the same reader for every file."""
    return lambda path, layout: fields


def _next_gqa_file(path: Path, layout: Layout) -> FieldReader:
    if layout != "csv":
        return next_gqa_json
    split = path.name.split(".")[0]
    spans = read_json_beside(path, f"gsub_{split}.json")
    folders = read_json_beside(path, "map_vid_vidorID.json")
    return NextGqaCsv(split, spans, folders).fields


def _llama_factory_file(path: Path, layout: Layout) -> FieldReader:
    """With the names that `dataset_info.json` beside the file has for its fields and roles."""
    entries = (read_json_beside(path, "dataset_info.json") or {}).values()
    of_file = (
        one for one in entries if isinstance(one, dict) and one.get("file_name") == path.name
    )
    return conversations.LlamaFactory(next(of_file, {})).fields


def _has(*fields: str, without: tuple[str, ...] = ()) -> Callable[[Record], bool]:
    """For `matches`: a record that has all of `fields`, and none of `without`."""
    return lambda record: (
        all(field in record for field in fields) and not any(field in record for field in without)
    )


def _is_next_gqa(record: Record) -> bool:
    is_table_row = {"video_id", "a0", "answer"} <= record.keys()
    is_appo_row = {"video_path", "qid", "options"} <= record.keys()
    return "question" in record and (is_table_row or is_appo_row or "glue" in record)


def _is_video_r1(record: Record) -> bool:
    is_dataset = "kinds" in record
    return "problem" in record and "path" in record and "data_type" in record and not is_dataset


def _has_text_options(record: Record) -> bool:
    return isinstance(record.get("options"), str)


def _is_perception_test(record: Record) -> bool:
    return ("mc_question" in record and "dim" not in record) or {"video_name", "answer_id"} <= (
        record.keys()
    )


def _is_longvideobench(record: Record) -> bool:
    return {"correct_choice", "video_path", "question"} <= record.keys()


def _is_lvbench(record: Record) -> bool:
    is_line = {"key", "qa"} <= record.keys()
    is_row = {"video_path", "question", "answer", "options"} <= record.keys()
    return is_line or (is_row and not {"qid", "multiple-choice", "problem"} & record.keys())


def _is_mlvu(record: Record) -> bool:
    is_native = {"video", "duration", "question", "answer", "question_type"} <= record.keys()
    is_hub = {"video_name", "task_type", "question_id", "question"} <= record.keys()
    return (is_native or is_hub) and not {"answer_id", "youtube_url"} & record.keys()


def _is_trl(record: Record) -> bool:
    messages = record.get("messages", record.get("prompt"))
    is_prompt = "prompt" in record and ("completion" in record or "solution" in record)
    has_files = bool({"videos", "video", "images", "image"} & record.keys())
    if "reward_model" in record:  # verl
        return False
    if is_prompt or conversations.has_parts(messages):
        return has_files or conversations.has_parts(messages)
    return False


def _is_alpaca(record: Record) -> bool:
    return {"instruction", "output", "videos"} <= record.keys()


for _row in (
    AnnotationFormat(
        "video-r1",
        "Video-R1",
        lambda record: _is_video_r1(record) and not _has_text_options(record),
        every_file(video_r1),
        csv_column="problem",
    ),
    AnnotationFormat(
        "videop2r",
        "VideoP2R, every value a text",
        lambda record: _is_video_r1(record) and _has_text_options(record),
        every_file(video_r1),
    ),
    AnnotationFormat(
        "nextgqa",
        "NExT-GQA, its tables or the JSON of APPO and VideoChat-R1",
        _is_next_gqa,
        _next_gqa_file,
        csv_column="video_id",
    ),
    AnnotationFormat(
        "perception-test",
        "Perception Test, one object per video, or one row per question",
        _is_perception_test,
        every_file(perception_test),
        questions_of=perception_test_questions,
        variants=("video-r1", "videop2r"),  # as APPO publishes it
    ),
    AnnotationFormat(
        "seed-bench-r1",
        "SEED-Bench-R1, training or validation form",
        lambda record: "golden_choice_idx" in record or "negative_answers" in record,
        lambda path, layout: SeedBenchR1(path.name).fields,
    ),
    AnnotationFormat(
        "jsonl",
        "the fields of VideoQuestion by their names",
        _has("problem", "media"),
        every_file(own_jsonl),
    ),
    AnnotationFormat(
        "columns",
        "columns called problem, options, solution and path, or as --columns says",
        _has("problem", "solution", "path", without=("data_type",)),
        every_file(Columns().fields),
    ),
    AnnotationFormat(
        "p2r-dataset",
        "a dataset of pipeline.build_cot",
        _has("problem", "paths", "kinds"),
        every_file(trainers.own_dataset),
    ),
    AnnotationFormat(
        "video-mme",
        "Video-MME",
        _has("videoID", "question", "options", "answer"),
        every_file(benchmarks.video_mme),
    ),
    AnnotationFormat(
        "mvbench",
        "MVBench, one file per task",
        _has(*("video", "question", "candidates", "answer"), without=("question_type", "duration")),
        every_file(benchmarks.mvbench),
    ),
    AnnotationFormat(
        "vsi-bench",
        "VSI-Bench",
        _has("scene_name", "question", "ground_truth"),
        every_file(benchmarks.vsi_bench),
    ),
    AnnotationFormat(
        "mmvu",
        "MMVU",
        _has("youtube_url", "question", "choices"),
        every_file(benchmarks.mmvu),
    ),
    AnnotationFormat(
        "videommmu",
        "VideoMMMU",
        _has("link_selected", "question", "options", "answer"),
        every_file(benchmarks.videommmu),
    ),
    AnnotationFormat(
        "vcr-bench",
        "VCR-Bench",
        _has("multiple-choice", "video_path", "question"),
        every_file(benchmarks.vcr_bench),
    ),
    AnnotationFormat(
        "tempcompass",
        "TempCompass, by video or as lmms-eval lists it",
        tempcompass.is_tempcompass,
        every_file(tempcompass.tempcompass),
        questions_of=tempcompass.tempcompass_questions,
        key_field=tempcompass.KEY,
    ),
    AnnotationFormat(
        "longvideobench",
        "LongVideoBench",
        _is_longvideobench,
        every_file(benchmarks.longvideobench),
    ),
    AnnotationFormat(
        "mlvu",
        "MLVU",
        _is_mlvu,
        every_file(benchmarks.mlvu),
    ),
    AnnotationFormat(
        "cg-bench",
        "CG-Bench",
        _has("video_uid", "question", "choices"),
        every_file(benchmarks.cg_bench),
    ),
    AnnotationFormat(
        "lvbench",
        "LVBench, lines by video or one row per question",
        _is_lvbench,
        every_file(benchmarks.lvbench),
        questions_of=benchmarks.lvbench_questions,
    ),
    AnnotationFormat(
        "video-holmes",
        "Video-Holmes",
        _has("video ID", "Question", "Options"),
        every_file(benchmarks.video_holmes),
    ),
    AnnotationFormat(
        "charades-sta",
        "Charades-STA, lines `ID start end##sentence` or lmms-eval's rows",
        lambda record: (
            grounding.CHARADES_LINE in record or {"video", "timestamp", "caption"} <= record.keys()
        ),
        every_file(grounding.charades_sta),
    ),
    AnnotationFormat(
        "activitynet-captions",
        "ActivityNet Captions, by video or as on the Hub",
        lambda record: (
            {"timestamps", "sentences"} <= record.keys()
            or {"captions_starts", "captions_ends", "en_captions"} <= record.keys()
        ),
        every_file(grounding.activitynet_captions),
        questions_of=grounding.activitynet_questions,
        key_field=grounding.ACTIVITYNET_KEY,
    ),
    AnnotationFormat(
        "llava-video-178k",
        "LLaVA-Video-178K",
        _has("conversations", "video"),
        every_file(conversations.llava),
        questions_of=conversations.llava_questions,
    ),
    AnnotationFormat(
        "llamafactory",
        "LLaMA-Factory: messages, ShareGPT or Alpaca in a JSON array",
        lambda record: conversations.is_chat_with_files(record) or _is_alpaca(record),
        _llama_factory_file,
        layouts=("array",),
    ),
    AnnotationFormat(
        "ms-swift",
        "ms-swift: messages, or query and response, in JSON Lines",
        conversations.is_chat_with_files,
        every_file(conversations.chat),
        layouts=("lines", "csv"),
    ),
    AnnotationFormat(
        "trl",
        "TRL: prompt with completion or solution, or messages of parts",
        _is_trl,
        every_file(conversations.chat),
        in_tables=conversations.is_chat_with_files,
    ),
    AnnotationFormat(
        "verl",
        "verl",
        _has("prompt", "reward_model"),
        every_file(conversations.verl),
    ),
    AnnotationFormat(
        "nemo-gym",
        "NeMo Gym",
        _has("responses_create_params", "expected_answer"),
        every_file(conversations.nemo_gym),
    ),
    AnnotationFormat(
        "easyvideor1",
        "EasyVideoR1",
        _has("problem", "answer", "data_type", "problem_type", without=("path", "paths")),
        every_file(trainers.easyvideor1),
    ),
    AnnotationFormat(
        "roll",
        "ROLL's video rows",
        _has("modality_type", "problem", "solution"),
        every_file(trainers.roll),
    ),
):
    register_format(_row)

_OURS = frozenset(FORMATS)
