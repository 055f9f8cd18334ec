"""`python -m pipeline.push OUT OWNER/NAME`: a build's dataset to the Hub, listed before it is sent.

    python -m pipeline.push out/build me/my-traces                # which files those would be
    python -m pipeline.push out/build me/my-traces --upload       # the same files, sent
    python -m pipeline.push out/build me/my-traces --with-media   # the clips, too

What goes is the dataset's Parquet files and its card. The ledger, pages, replies and options never
do; clips, images and the card's pictures of frames only with `--with-media`, where their licences
allow it.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.config import UsageError, parse_command
from cli.hub import PushOptions, Upload, publish
from cli.option_groups import MediaRootOptions
from pipeline.options import BuildFolderOptions
from schemas.dataset_rows import find_dataset_files, read_dataset_rows

PROG = "pipeline.push"
DESCRIPTION = "Send a build's dataset to the Hub; without --upload only list what would be sent."
CARD = "README.md"
_PICTURE = re.compile(r"^!\[.*\]\(pictures/.*\)\n\n?", re.M)
_ABOUT_PICTURES = re.compile(r"^The pictures are frames of the media.*?\n\n", re.M | re.S)
_OTHER_FORMATS = re.compile(r"^Beside `dataset/`, for other readers.*?(?=^## )", re.M | re.S)


class PushConfig(
    BuildFolderOptions,
    PushOptions,
    MediaRootOptions[Path | None],
    defaults={"media_root": None},
    notes={"media_root": "With --with-media; by default the one that the build used."},
    group="media",
    example="out/build me/my-traces",
):
    """Options of `python -m pipeline.push`."""

    with_media: bool = False
    """Send the clips and images that rows name, under media/, and the card's pictures of frames."""


def main(argv: Sequence[str] | None = None) -> int:
    """List the files of the dataset, and send them where asked."""
    config = parse_command(
        PushConfig, argv, prog=PROG, description=DESCRIPTION, positional=("out", "repo")
    )
    return publish(Upload("dataset", config.repo, dict(_files(config))), config)


def _files(config: PushConfig) -> Iterator[tuple[str, Path | str]]:
    """The dataset, its card, and with --with-media what rows and card show. Raises UsageError."""
    card = config.out / CARD
    try:
        parts = find_dataset_files([config.out])
        text = card.read_text("utf-8")
    except (ValueError, OSError):
        raise UsageError(
            f"{config.out} holds no dataset with its card; give the output folder of a finished"
            " pipeline.build_cot"
        ) from None
    yield from ((f"dataset/{part.name}", part) for part in parts)
    yield CARD, text if config.with_media else card_without_pictures(text)
    if config.with_media:
        pictures = sorted((config.out / "pictures").glob("*.png"))
        yield from ((f"pictures/{path.name}", path) for path in pictures)
        yield from _media(parts, _media_root(config))


def card_without_pictures(text: str) -> str:
    """The card of a dataset whose media and other formats stay here."""
    for pattern in (_PICTURE, _ABOUT_PICTURES, _OTHER_FORMATS):
        text = pattern.sub("", text)
    return text


def _media(parts: Sequence[Path], root: Path) -> Iterator[tuple[str, Path]]:
    """Each file that a row names, once; nothing outside of the media root."""
    whole = root.resolve()
    for name in dict.fromkeys(name for row in read_dataset_rows(parts) for name in row["paths"]):
        path = root / name
        if not path.resolve().is_relative_to(whole) or not path.is_file():
            raise UsageError(
                f"--with-media: {name} is no file under {root}; give --media-root the folder under"
                " which the dataset's paths lie"
            )
        yield f"media/{name}", path


def _media_root(config: PushConfig) -> Path:
    if config.media_root is not None:
        return config.media_root
    try:
        saved = json.loads((config.out / "config.json").read_text("utf-8"))["media_root"]
    except (OSError, ValueError, LookupError, TypeError):
        saved = None
    if not isinstance(saved, str) or not Path(saved).is_dir():
        raise UsageError(
            f"--with-media: the media folder that {config.out} was built from is not there; give"
            " it by --media-root"
        )
    return Path(saved)
