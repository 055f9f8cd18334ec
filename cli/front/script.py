"""The console script: `vp2r build ...` is `python -m pipeline.build_cot ...`.

It runs the same module in the same way, and more: a `train.py` or `pipeline.py` in the working
folder does not stand in the way, because Python looks for modules there only under `python -m`.
"""

import sys

from cli import end_quietly_while_importing

_NAME = "vp2r"  # as `cli.front.commands` has it, which imports too much for here

if sys.argv[0].replace("\\", "/").rpartition("/")[2] == _NAME:
    end_quietly_while_importing(is_command=True)

import os  # noqa: E402  # from here on Ctrl-C ends in one line
import runpy  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from cli.config import UsageError, no_such_choice, run_command  # noqa: E402
from cli.front.commands import COMMANDS, SCRIPT  # noqa: E402

_COMPLETION = "completion"


def main() -> None:
    """What the console script calls."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        run_module(COMMANDS[words[0]].module, words[1:])
    else:
        run_command(SCRIPT, lambda: _own(words))


def run_module(module: str, words: Sequence[str]) -> None:
    """Run a command as `python -m` does, the commands that it starts included."""
    os.environ["PYTHONSAFEPATH"] = "1"  # nothing of the working folder is imported there, either
    sys.argv[1:] = list(words)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _own(words: Sequence[str]) -> int:
    """What the script does itself: the overview, and the completion of a shell."""
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] != _COMPLETION:
        names = (*COMMANDS, _COMPLETION)
        raise UsageError(f"{no_such_choice(words[0], names)}; {SCRIPT} --help explains them")
    from cli.front.completion import SHELLS, completion

    if len(words) != 2 or words[1] not in SHELLS:
        raise UsageError(
            f"{SCRIPT} {_COMPLETION} takes the name of a shell: {', '.join(SHELLS)}; for example"
            f" {SCRIPT} {_COMPLETION} bash"
        )
    print(completion(words[1]))
    return 0


def overview() -> str:
    """All subcommands, each with what it does and the module behind it."""
    rows = {name: f"{one.about} (python -m {one.module})" for name, one in COMMANDS.items()}
    rows[_COMPLETION] = "print the completion of bash, zsh or fish"
    width = max(map(len, rows))
    lines = [f"  {name:{width}}  {about}" for name, about in rows.items()]
    usage = f"usage: {SCRIPT} SUBCOMMAND [options]; {SCRIPT} SUBCOMMAND --help lists them"
    return "\n".join([usage, "", *lines])
