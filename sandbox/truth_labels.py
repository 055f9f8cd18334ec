"""`python -m sandbox.truth_labels AUDIT --media-root WORLD --out FILE`: labels from the truth.

In the sandbox it is known whether an observation is sufficient: it states every crucial fact, and
its statements give the right answer. `judges.audit label --import` reads the file, so an audit of a
sandbox build needs no human labels.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cli.config import EXIT_OK, UsageError, parse_command, run_command
from cli.option_groups import AuditOptions, MediaRootOptions
from cli.output_folder import make_room_for
from judges.audits.records import AuditError
from judges.audits.store import AuditStore
from judges.backends.base import BackendUnavailableError
from judges.backends.registry import BackendOptions
from judges.sufficiency import sufficiency_request, verdict_of
from sandbox.option_groups import OUTPUT_FILE_ALIASES, OutputFileOptions
from sandbox.oracle import open_backend
from schemas.ledger.file import LedgerError
from schemas.questions import VideoQuestion
from schemas.runs import start_run

PROG = "sandbox.truth_labels"
ANNOTATOR = "sandbox truth"
_FAULTLESS = "oracle:0"


class TruthConfig(
    AuditOptions,
    MediaRootOptions[Path | None],
    OutputFileOptions[Path],
    defaults={"media_root": None},
    notes={"media_root": "Default: the folder of the build that was sampled."},
    example="out/audit --output-file labels.jsonl",
):
    """Options of `sandbox.truth_labels`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Label each row with the verdict of a faultless oracle."""
    config = parse_command(
        TruthConfig,
        argv,
        prog=PROG,
        description="Label an audit of the sandbox from its truth.",
        aliases=OUTPUT_FILE_ALIASES,
        positional=("audit",),
    )
    make_room_for(config.output_file)
    with AuditStore.open(config.audit, start_run(PROG, config)) as store:
        media_root = config.media_root or store.media_root
        if media_root is None:
            raise UsageError(
                f"the audit in {config.audit} does not record its media folder: give --media-root"
            )
        items = store.items()
        judged = [(item.question, item.observation) for item in items]
        labels = asyncio.run(true_labels(judged, media_root))
        store.ledger.end_run(EXIT_OK)
    lines = [
        {"item_id": item.item_id, "label": label, "reason": "", "annotator": ANNOTATOR}
        for item, label in zip(items, labels, strict=True)
    ]
    config.output_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    counts = ", ".join(f"{count} {label}" for label, count in sorted(Counter(labels).items()))
    print(f"{config.output_file}: {len(lines)} labels from the sandbox's truth ({counts})")
    return EXIT_OK


async def true_labels(judged: Sequence[tuple[VideoQuestion, str]], media_root: Path) -> list[str]:
    """`sufficient` or `insufficient` for each question with an observation, from the truth."""
    oracle = await open_backend("0", spec=_FAULTLESS, options=BackendOptions(media_root=media_root))
    labels = []
    for question, observation in judged:
        request, _ = sufficiency_request(question, observation)
        verdict = verdict_of(await oracle.complete(request)).verdict
        labels.append("sufficient" if verdict == "yes" else "insufficient")
    return labels


if __name__ == "__main__":
    run_command(PROG, main, usage_errors=(AuditError, LedgerError, BackendUnavailableError))
