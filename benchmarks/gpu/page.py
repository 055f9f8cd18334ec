"""The page of GPU figures, written from a run's JSON and from nothing else.

    python benchmarks/gpu/page.py out/gpu/gpu.json

writes `docs/reports/gpu.json` and `docs/reports/gpu.md`. Without a file it writes the page again
from the JSON that is there. A dry run is refused.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.gpu.tables import table_of

PUBLISHED = Path(__file__).resolve().parent.parent.parent / "docs" / "reports"
NOT_YET = """\
# On a GPU

Not yet measured.

```text
bash benchmarks/gpu/run.sh
python benchmarks/gpu/page.py out/gpu/gpu.json
```
"""


def page_of(report: Mapping[str, Any] | None) -> str:
    """The page in Markdown; that of no report says so and nothing else."""
    if report is None:
        return NOT_YET
    return "\n".join([*_head(report), *(line for p in report["parts"] for line in _section(p))])


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    hardware, versions = report["hardware"], report["versions"]
    where = hardware.get("gpu", f"{hardware['processors']} processors, no GPU")
    yield "# On a GPU\n"
    if report["is_dry"]:
        yield "**A dry run: tiny shapes on a CPU. These figures say nothing.**\n"
    yield (
        f"{where}; {', '.join(f'{name} {version}' for name, version in versions.items())}; commit"
        f" `{report['commit']}`; {report['began']}. Random weights of the released models'"
        " configurations. Forms take turns in one run, each after a warm-up: medians, and in"
        " brackets the least and the most. Memory is the peak of tensors above the model. This"
        " page is written from `gpu.json` by\n"
    )
    yield (
        "```text\nbash benchmarks/gpu/run.sh\npython benchmarks/gpu/page.py out/gpu/gpu.json\n```\n"
    )


def _section(part: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {part['title']}\n"
    yield f"```text\n$ {part['command']}\n```\n"
    if part["status"] == "measured":
        yield from table_of(part["command"], part["result"])
        yield ""
    else:
        yield f"Not measured: {part['status']} ({part['detail']}).\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("report", type=Path, nargs="?", help="gpu.json of a run")
    parser.add_argument("--output-dir", type=Path, default=PUBLISHED, help="where both are written")
    options = parser.parse_args(arguments)
    kept: Path = options.output_dir / "gpu.json"
    source = options.report or (kept if kept.exists() else None)
    if source is not None and not source.is_file():
        print(f"error: there is no file {source}: give the gpu.json of a run", file=sys.stderr)
        return 2
    report = json.loads(source.read_text()) if source else None
    if report and report["is_dry"]:
        print(
            f"error: {source} is of a dry run, whose figures say nothing: publish a run on a GPU",
            file=sys.stderr,
        )
        return 2
    if report:
        kept.write_text(json.dumps(report, indent=1) + "\n")
    (options.output_dir / "gpu.md").write_text(page_of(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
