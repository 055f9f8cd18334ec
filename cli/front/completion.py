"""Shell completion of the console script, printed from the declarations of options.

    vp2r completion bash > ~/.local/share/bash-completion/completions/vp2r
    vp2r completion zsh > ~/.zfunc/_vp2r          # a folder of fpath, before compinit
    vp2r completion fish > ~/.config/fish/completions/vp2r.fish

Subcommands, options and the values that an option takes are completed; where a value is free, files
are. What is printed is static: a shell that completes starts no Python. Options of plugins are not
in it.
"""

import shlex
from dataclasses import dataclass

from cli.front.commands import COMMANDS, SCRIPT
from cli.option_parser import OptionParser


@dataclass(frozen=True)
class Line:
    """What may follow the words of a subcommand: flags, and the values that some of them take."""

    words: tuple[str, ...]
    """`("build",)`, or `("audit", "run")`."""
    about: str
    flags: tuple[str, ...]
    choices: dict[str, tuple[str, ...]]


def lines() -> list[Line]:
    """Every subcommand with its flags."""
    found = []
    for name, command in COMMANDS.items():
        more = command.other_flags()
        for part, parser in command.parsers().items():
            words = (name, part) if part else (name,)
            flags = tuple(sorted({*parser.long_flags(), *more}))
            found.append(Line(words, command.about, flags, _choices(parser)))
    return found


def _choices(parser: OptionParser) -> dict[str, tuple[str, ...]]:
    """The values of the options whose placeholder lists them: `{decord,pyav}`."""
    found: dict[str, tuple[str, ...]] = {}
    for action in parser._actions:
        shown = action.metavar
        if isinstance(shown, str) and shown.startswith("{"):
            values = tuple(shown[1:-1].split(","))
            found |= {flag: values for flag in action.option_strings if flag.startswith("--")}
    return {flag: values for flag, values in found.items() if flag not in parser.former_flags}


def completion(shell: str) -> str:
    """The text that a shell reads."""
    return SHELLS[shell](lines())


def _bash(found: list[Line]) -> str:
    complete = 'COMPREPLY=($(compgen -W "$given" -- "$current"))'
    return f"""# bash completion of {SCRIPT}
_{SCRIPT}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local command=${{COMP_WORDS[1]}} part=${{COMP_WORDS[2]}} place=$COMP_CWORD given=""
{_cases(found, complete)}
  if [[ $current == -* ]]; then
    {complete}
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _{SCRIPT} {SCRIPT}"""


def _zsh(found: list[Line]) -> str:
    complete = "compadd -- ${=given}"
    return f"""#compdef {SCRIPT}
_{SCRIPT}() {{
  local current=${{words[CURRENT]}} before=${{words[CURRENT-1]}}
  local command=${{words[2]}} part=${{words[3]}} place=$((CURRENT-1)) given=""
{_cases(found, complete)}
  if [[ $current == -* ]]; then
    {complete}
  else
    _files
  fi
}}
compdef _{SCRIPT} {SCRIPT}"""


def _cases(found: list[Line], complete: str) -> str:
    """Completes subcommands, their parts and listed values; sets `given` to the flags.

    The same in bash and zsh, which have set `command`, `part`, `place` (of the word that is
    completed, from 0) and `before`, the word in front of it.
    """
    at_once = f"{complete}; return"
    parts: dict[str, list[str]] = {"completion": list(SHELLS)}
    values, flags = [], []
    for line in found:
        key = " ".join(line.words)
        if line.words[1:]:
            parts.setdefault(line.words[0], []).extend(line.words[1:])
        values += [
            f"    {shlex.quote(f'{key} {flag}')}) given={shlex.quote(' '.join(given))} ;;"
            for flag, given in line.choices.items()
        ]
        flags.append(f"    {shlex.quote(key)}) given={shlex.quote(' '.join(line.flags))} ;;")
    first = shlex.quote(" ".join(_first_words()))
    texts = [f'  if [ "$place" -eq 1 ]; then given={first}; {at_once}; fi']
    for name, own in parts.items():
        texts += [
            f'  if [ "$command" = {name} ]; then',
            f"    if [ $place -eq 2 ]; then given={shlex.quote(' '.join(own))}; {at_once}; fi",
            '    command="$command $part"',
            "  fi",
        ]
    texts += ['  case "$command $before" in', *values, "  esac"]
    texts += [f'  if [ -n "$given" ]; then {at_once}; fi']
    return "\n".join([*texts, '  case "$command" in', *flags, "  esac"])


def _fish(found: list[Line]) -> str:
    rows = [f"# fish completion of {SCRIPT}"]
    for name in _first_words():
        about = COMMANDS[name].about if name in COMMANDS else "print the completion of a shell"
        rows.append(
            f"complete -c {SCRIPT} -f -n __fish_use_subcommand -a {name} -d {_quoted(about)}"
        )
    for line in found:
        seen = " && ".join(f"__fish_seen_subcommand_from {word}" for word in line.words)
        if len(line.words) == 2:
            first, part = line.words
            rows.append(
                f"complete -c {SCRIPT} -f -n {_quoted(f'__fish_seen_subcommand_from {first}')}"
                f" -a {part}"
            )
        for flag in line.flags:
            values = line.choices.get(flag)
            more = f" -x -a {_quoted(' '.join(values))}" if values else ""
            rows.append(f"complete -c {SCRIPT} -n {_quoted(seen)} -l {flag[2:]}{more}")
    return "\n".join(rows)


def _quoted(text: str) -> str:
    """A text in fish's single quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _first_words() -> tuple[str, ...]:
    return (*COMMANDS, "completion")


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
