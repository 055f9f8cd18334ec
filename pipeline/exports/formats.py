"""The table of further formats, and what becomes of them when a build is run, resumed or begun.

Each export streams its rows in the order of the question file and replaces its folder in one
rename. Files hold content only, no times: equal ledgers give equal bytes, and formats with absolute
paths do so for equal folders of media.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cli.config import UsageError
from pipeline.exports.dataset import QUESTIONS_NAME, export_questions
from pipeline.exports.hf_video import EMBEDDED, export_hf_video, export_hf_video_embedded
from pipeline.exports.llamafactory import LLAMAFACTORY_NAMES, export_llamafactory
from pipeline.exports.ms_swift import export_ms_swift
from pipeline.exports.parquet_files import PARQUET_NAMES
from pipeline.exports.rows import LINES_NAMES, Exported, run_options
from pipeline.exports.trl import export_trl
from pipeline.exports.verl import export_verl
from pipeline.exports.videop2r import VIDEOP2R_NAMES, export_videop2r
from schemas.ledger.ledger import Ledger


@dataclass(frozen=True)
class Job:
    """What is exported: a ledger into an output folder.

    Media lie below `media_root`, and below `training_root` on the machine that trains.
    """

    ledger: Ledger
    out: Path
    media_root: Path
    training_root: Path


@dataclass(frozen=True)
class Format:
    """A further format: what writes it, patterns of the names of its files, who reads it."""

    write: Callable[[Job], Exported]
    names: tuple[str, ...]
    reader: str


# By the name of the folder; `pipeline.options` has the same names.
FORMATS: Mapping[str, Format] = {
    "videop2r": Format(
        lambda job: export_videop2r(job.ledger, job.out),
        (VIDEOP2R_NAMES,),
        "code that reads the VideoP2R release",
    ),
    "trl": Format(
        lambda job: export_trl(job.ledger, job.out),
        (PARQUET_NAMES,),
        "TRL: `messages`, and the paths of `videos` and `images`",
    ),
    "questions": Format(
        lambda job: export_questions(job.ledger, job.out),
        (QUESTIONS_NAME,),
        "`train.rl` and `train.evaluate`: all questions, with their marks",
    ),
    "llamafactory": Format(
        lambda job: export_llamafactory(job.ledger, job.out),
        LLAMAFACTORY_NAMES,
        "LLaMA-Factory: `dataset_dir` is this folder, `media_dir` the folder of the media",
    ),
    "ms-swift": Format(
        lambda job: export_ms_swift(job.ledger, job.out, job.training_root),
        LINES_NAMES,
        "ms-swift: `--dataset` with these files, for fine-tuning and for GRPO",
    ),
    "verl": Format(
        lambda job: export_verl(job.ledger, job.out, job.training_root),
        (PARQUET_NAMES,),
        "verl: `data.train_files`; all questions whose media could be read",
    ),
    "hf-video": Format(
        lambda job: export_hf_video(job.ledger, job.out, job.training_root),
        (PARQUET_NAMES,),
        "`datasets`: the rows with a column `video` that plays the files where they lie",
    ),
    EMBEDDED: Format(
        lambda job: export_hf_video_embedded(job.ledger, job.out, job.media_root),
        (PARQUET_NAMES,),
        "`datasets` and the viewer of the Hub: the same with the videos inside",
    ),
}


def refuse_unwritable_outputs(out: Path) -> None:
    """Raise UsageError where something stands in the way of what a build writes into `out`.

    A link to a folder, for example on a larger disk, is fine.
    """
    for name in ("dataset", "pictures", *FORMATS):
        path = out / name
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise UsageError(
                f"{path} is no folder, and a build writes a folder there; move it away, or give"
                " another --output-dir"
            )
    for path in sorted((out / "dataset").glob("*.parquet")):
        if not path.match(PARQUET_NAMES):
            raise UsageError(
                f"{path} was written by no build, and would be read as rows of this one; move it"
                " away, or give another --output-dir"
            )
    for name in ("README.md", "progress.json", "cot.duckdb", "config.json"):
        if (out / name).is_dir():
            raise UsageError(
                f"{out / name} is a folder, and a build writes a file there; move it away, or give"
                " another --output-dir"
            )


def export_further(
    ledger: Ledger, out: Path, formats: Sequence[str], training_root: Path | None = None
) -> list[str]:
    """Write `formats`, and update those that an earlier run wrote into `out`.

    `training_root` is the folder of the media on the machine that trains, by default the
    run's own. Returns a sentence for each. A folder that was not requested and holds foreign
    files is left unchanged, and its sentence says so; one that was requested keeps them.
    """
    media_root = Path(run_options(ledger)["media_root"])
    job = Job(ledger, out, media_root, training_root or media_root)
    sentences = []
    for name, format_ in FORMATS.items():
        folder = out / name
        entries = list(folder.iterdir()) if folder.is_dir() else []
        num_ours = sum(_is_of(entry, format_) for entry in entries)
        if name in formats or 0 < num_ours == len(entries):
            exported = format_.write(job)
            sentences.append(_sentence(exported, is_requested=name in formats))
        elif num_ours:
            sentences.append(
                f"{folder} is of an earlier run and was not brought up to date, because it holds "
                f"files of others too; --export {name} brings it up to date"
            )
    return sentences


def formats_in(out: Path) -> dict[str, str]:
    """Which formats there are in an output folder, and who reads them."""
    found = {}
    for name, format_ in FORMATS.items():
        folder = out / name
        if folder.is_dir() and any(_is_of(entry, format_) for entry in folder.iterdir()):
            found[name] = format_.reader
    return found


def _is_of(path: Path, format_: Format) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in format_.names)


def _sentence(exported: Exported, *, is_requested: bool) -> str:
    sentence = f"{exported.folder}: rows {exported.num_rows:,}"
    if exported.media_below is not None:
        sentence += f", media below {exported.media_below}"
    if exported.num_left_out:
        sentence += f", left out {exported.num_left_out:,}: {exported.why_left_out}"
    return sentence if is_requested else sentence + " (an earlier run asked for this format)"
