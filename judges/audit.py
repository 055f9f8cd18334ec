"""`python -m judges.audit`: can this judge be trusted, and what does its error do to the data?

    python -m judges.audit sample AUDIT --build OUT             # draw verdicts, blind (RL: --run)
    python -m judges.audit label AUDIT                          # people label the rows
    python -m judges.audit run AUDIT --judge claude:claude-haiku-5-5 --probes
    python -m judges.audit report AUDIT                         # AUDIT/report.html
    python -m judges.audit gate AUDIT --baseline judge.json     # exit 1 where a judge became worse

AUDIT is a folder with a DuckDB file of its own. Each subcommand has its own options, which
`sample --help` and so on list.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cli.config import (
    DEFAULT_ALIASES,
    Aliases,
    Config,
    UsageError,
    parse_command,
    run_command,
)
from judges.audits.records import AuditError
from schemas.ledger.file import LedgerError

PROG = "judges.audit"


@dataclass(frozen=True)
class Subcommand:
    """Options and function of a subcommand as `module:name`, and what it does in one sentence."""

    config: str
    function: str
    description: str

    def run(self, prog: str, words: Sequence[str]) -> int:
        """Read the options and do it; no other subcommand is imported."""
        config_class: type[Config] = _named(self.config)
        # A list option takes all words behind it, so the folder may stand in front without a flag.
        is_folder = bool(words) and not words[0].startswith("-")
        config = parse_command(
            config_class,
            ["--audit", *words] if is_folder else words,
            prog=prog,
            description=self.description,
            aliases=_aliases_of(self.config),
        )
        function: Callable[[Config], int] = _named(self.function)
        return function(config)


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _aliases_of(reference: str) -> Aliases:
    module = import_module(reference.partition(":")[0])
    aliases: Aliases = getattr(module, "ALIASES", DEFAULT_ALIASES)
    return aliases


SUBCOMMANDS = {
    "sample": Subcommand(
        "judges.audits.sample.command:SampleConfig",
        "judges.audits.sample.command:sample",
        "Draw verdicts of a build's judge: stratified, few per video, with weights, blind.",
    ),
    "label": Subcommand(
        "judges.audits.label.command:LabelConfig",
        "judges.audits.label.command:label",
        "Label each row as sufficient or not: on a page on this machine, or through files.",
    ),
    "run": Subcommand(
        "judges.audits.run.options:RunConfig",
        "judges.audits.run.runner:run",
        "Send the drawn rows to one or more judges, with repeats, variants and probes.",
    ),
    "report": Subcommand(
        "judges.audits.report.command:ReportConfig",
        "judges.audits.report.command:report",
        "Compare each judge with the labels, and estimate its errors: screen, JSON, page.",
    ),
    "gate": Subcommand(
        "judges.audits.gate:GateConfig",
        "judges.audits.gate:gate",
        "Compare a judge with a stored baseline; exit status 1 where agreement has fallen.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that is named first."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] not in SUBCOMMANDS:
        raise UsageError(
            f"{words[0]!r} is no subcommand; expected one of {', '.join(SUBCOMMANDS)}, "
            f"for example {PROG} sample --help"
        )
    try:
        return SUBCOMMANDS[words[0]].run(f"{PROG} {words[0]}", words[1:])
    except (AuditError, LedgerError) as error:
        raise UsageError(str(error)) from error


def _overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {one.description}" for name, one in SUBCOMMANDS.items()]
    usage = f"usage: {PROG} SUBCOMMAND AUDIT [options]; {PROG} SUBCOMMAND --help lists them"
    return "\n".join([usage, "", *lines])


if __name__ == "__main__":
    run_command(PROG, main)
