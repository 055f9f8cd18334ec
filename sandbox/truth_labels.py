"""`python -m sandbox.truth_labels AUDIT --media-root WORLD --out FILE`: labels from the truth.

In the sandbox it is known whether an observation is sufficient: it states every crucial fact, and
what it states leads to the right answer. The file is one that `judges.audit label --import` takes,
so an audit of a build of the sandbox needs nobody to label it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from judges.audits.records import AuditError
from judges.audits.store import AuditItem, AuditStore
from judges.backends.base import BackendUnavailableError
from judges.backends.registry import BackendOptions
from judges.sufficiency import sufficiency_request, verdict_of
from sandbox.oracle import open_backend
from schemas.config import EXIT_OK, Config, UsageError, parse_command, run_command
from schemas.ledger_errors import LedgerError
from schemas.runs import start_run

PROG = "sandbox.truth_labels"
ANNOTATOR = "sandbox truth"
_FAULTLESS = "oracle:0"


class TruthConfig(Config):
    """Options of `sandbox.truth_labels`."""

    audit: Path
    """Folder of the audit, as `judges.audit sample` drew it from a build of the sandbox."""
    media_root: Path | None = None
    """Folder of the rendered world, where it is not the one that `sample` stored."""
    output_file: Path
    """JSON Lines file to write, for `judges.audit label AUDIT --import`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask the oracle that never errs about each row, and write what it says as labels."""
    config = parse_command(
        TruthConfig,
        argv,
        prog=PROG,
        description="Label an audit of the sandbox from its truth.",
        aliases={"output_file": ("--out",)},
        positional=("audit",),
    )
    with AuditStore.open(config.audit, start_run(PROG, config)) as store:
        media_root = config.media_root or store.media_root
        if media_root is None:
            raise UsageError(
                f"the audit in {config.audit} does not say where its media lie: give --media-root"
            )
        items = store.items()
        labels = asyncio.run(_labels(items, media_root))
        store.ledger.end_run(EXIT_OK)
    lines = [
        {"item_id": item.item_id, "label": label, "reason": "", "annotator": ANNOTATOR}
        for item, label in zip(items, labels, strict=True)
    ]
    config.output_file.parent.mkdir(parents=True, exist_ok=True)
    config.output_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    told = ", ".join(f"{count} {label}" for label, count in sorted(Counter(labels).items()))
    print(f"{config.output_file}: {len(lines)} labels from the sandbox's truth ({told})")
    return EXIT_OK


async def _labels(items: Sequence[AuditItem], media_root: Path) -> list[str]:
    oracle = await open_backend("0", spec=_FAULTLESS, options=BackendOptions(media_root=media_root))
    labels = []
    for item in items:
        request, _ = sufficiency_request(item.question, item.observation)
        said = verdict_of(await oracle.complete(request)).verdict
        labels.append("sufficient" if said == "yes" else "insufficient")
    return labels


if __name__ == "__main__":
    run_command(PROG, main, usage_errors=(AuditError, LedgerError, BackendUnavailableError))
