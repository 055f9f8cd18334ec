"""`python -m judges.audit label`: people label each row as sufficient or not.

python -m judges.audit label AUDIT                                the page, on this machine only
python -m judges.audit label AUDIT --export rows.csv              for people who label elsewhere
python -m judges.audit label AUDIT --import rows.csv --annotator NAME
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from cli.config import EXIT_OK, EXIT_STOPPED, UsageError, say
from cli.option_groups import AuditOptions, FrameOptions, MediaRootOptions
from judges.audits.label.files import export_labels, import_labels
from judges.audits.label.queue import LabelBook, annotator_name
from judges.audits.store import AuditStore
from media.sampling import FrameSpec
from schemas.runs import DISTRIBUTION, start_run

if TYPE_CHECKING:
    from media.store import FrameStore

ALIASES = {"export_file": ("--export",), "import_file": ("--import",)}


class LabelConfig(
    AuditOptions,
    MediaRootOptions[Path | None],
    FrameOptions,
    defaults={"media_root": None, "video_decoder": "decord-then-pyav"},
    notes={"media_root": "By default the one that the build used."},
    group="data",
    groups={"port": "other", "export_file": "output"},
    example="out/audit --annotator me",
):
    """Options of `judges.audit label`."""

    annotator: str | None = None
    """Who labels. Without it the page asks, and a file to import must name its authors."""
    port: int = Field(7860, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes any free one."""
    export_file: Path | None = None
    """Write the rows with their labels to this new .csv or .jsonl file, and serve no page."""
    import_file: Path | None = None
    """Read labels from this .csv or .jsonl file, and serve no page."""
    replace: bool = False
    """Let imported labels replace other labels of the same person on the same row."""

    @field_validator("annotator")
    @classmethod
    def _annotator_is_a_name(cls, value: str | None) -> str | None:
        return None if value is None else annotator_name(value)

    @field_validator("frames")
    @classmethod
    def _frames_are_a_policy(cls, value: str) -> str:
        return FrameSpec.parse(value).policy

    @model_validator(mode="after")
    def _one_thing_at_a_time(self) -> "LabelConfig":
        if self.export_file is not None and self.import_file is not None:
            raise ValueError("--export and --import were both given: run one after the other")
        if self.replace and self.import_file is None:
            raise ValueError("--replace says what --import does: give both")
        return self


def label(config: LabelConfig) -> int:
    """Serve the page until Ctrl-C, or move labels to or from a file."""
    run = start_run(sys.argv, config)
    with AuditStore.open(config.audit, run) as store:
        if config.export_file is not None:
            say(export_labels(store, config.export_file, config.annotator), sys.stdout)
            return EXIT_OK
        if config.import_file is not None:
            found = import_labels(
                store, config.import_file, config.annotator, may_replace=config.replace
            )
            say(found, sys.stdout)
            return EXIT_OK
        return _serve_page(config, store)


def _serve_page(config: LabelConfig, store: AuditStore) -> int:
    from judges.audits.label.server import labelling_app, loopback_socket, serve

    media_root = _media_root(config, store)
    book = LabelBook(store)
    try:
        listening = loopback_socket(config.port)
    except OSError as error:
        raise UsageError(
            f"--port {config.port}: {error.strerror}; give another port, or 0 for any free one"
        ) from None
    with listening, _frame_store(config, media_root) as frames:
        try:
            app = labelling_app(
                book,
                frames,
                media_root,
                follow_symlinks=config.follow_symlinks,
                default_annotator=config.annotator,
            )
        except ImportError as error:
            raise UsageError(
                f"the labelling page needs the extra 'ui' ({error.name} is not installed): "
                f"pip install '{DISTRIBUTION}[ui]', or label elsewhere with --export"
            ) from None
        host, port = listening.getsockname()
        print(
            f"{len(book.items)} rows to label: open http://{host}:{port}/ in a browser on this "
            "machine.\nEvery label is saved at once; Ctrl-C stops, the same command goes on.",
            flush=True,
        )
        try:
            serve(app, listening)
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return _summary(book)


def _frame_store(config: LabelConfig, media_root: Path) -> "FrameStore":
    from media.cache import default_cache_dir
    from media.store import FrameStore

    try:
        return FrameStore(
            media_root,
            spec=FrameSpec.parse(config.frames, config.max_pixels),
            cache_dir=config.frame_cache or default_cache_dir(),
            reader=config.video_decoder,
            timeout_seconds=config.decode_timeout_seconds,
            follow_symlinks=config.follow_symlinks,
        )
    except ValueError as error:
        raise UsageError(f"--video-decoder {config.video_decoder}: {error}") from None


def _media_root(config: LabelConfig, store: AuditStore) -> Path:
    if not store.kind.shows_media:
        return store.folder  # nothing in it is ever asked for
    root = config.media_root or store.media_root
    if root is None:
        raise UsageError(
            f"the audit in {config.audit} does not say where its videos lie: give --media-root"
        )
    if not root.is_dir():
        raise UsageError(f"the media root {root} is no folder: give --media-root")
    return root


def _summary(book: LabelBook) -> int:
    counts = book.counts()
    for name, count in counts.items():
        say(f"{name}: {count} of {len(book.items)} rows labelled", sys.stdout)
    is_complete = bool(counts) and all(count == len(book.items) for count in counts.values())
    return EXIT_OK if is_complete else EXIT_STOPPED
