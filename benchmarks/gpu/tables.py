"""Tables of the GPU page: what each benchmark's JSON looks like in Markdown."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_Result = Mapping[str, Any]


def table_of(command: str, result: _Result) -> list[str]:
    """The lines of a part's table. The benchmark is the script that its command starts."""
    script = Path(command.split()[1]).name
    return list(_TABLES[script](result))


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def _turns(result: _Result, ratio: str) -> Iterator[str]:
    """Forms that took turns: seconds, a ratio of theirs, peak memory."""
    head = ("form", "seconds", ratio, "peak MB above the model")
    peaks = result["peak MB above the model"]
    yield from _rows(
        head,
        (
            (form, _spread(seconds), f"{result[f'{ratio}, seconds'][form]:.2f}", str(peaks[form]))
            for form, seconds in result["seconds"].items()
        ),
    )


def _against_trl(result: _Result) -> Iterator[str]:
    yield from _turns(result, "times faster than trl")
    ceiling = result["ceiling (tokens of the language model)"]
    yield f"\nCeiling by tokens of the language model, trl over shared: {ceiling}."


def _step(result: _Result) -> Iterator[str]:
    """A whole step, and where its time goes."""
    yield from _against_trl(result)
    phases = result["mean seconds of each phase"]
    names = sorted({name for phase in phases.values() for name in phase})
    yield "\nMean seconds of each phase:\n"
    yield from _rows(
        ("form", *names),
        (
            (form, *(f"{phase.get(name, 0.0):.3f}" for name in names))
            for form, phase in phases.items()
        ),
    )


def _rollouts(result: _Result) -> Iterator[str]:
    yield from _against_trl(result)
    yield f"\nGreedy tokens of all forms are the same: {'yes' if result['same tokens'] else 'no'}."


def _memory(result: _Result) -> Iterator[str]:
    yield from _rows(
        ("GB", "measured", "planned", "measured over planned"),
        (
            (part, *(f"{size:.3f}" for size in sizes.values()))
            for part, sizes in result["GB"].items()
        ),
    )
    reserved, floor = result["GB reserved while learning"], result["GB planned with floor"]
    if reserved is not None:
        yield f"\nWhile learning the allocator had reserved {reserved} GB; with its floor, the"
        yield f"plan says {floor} GB."


def _precision(result: _Result) -> Iterator[str]:
    ways = result["against float32, plain"]
    figures = list(next(iter(ways.values())))
    yield from _rows(
        ("against float32 with the prompt copied", *(name.replace("|", "") for name in figures)),
        ((name, *(f"{way[figure]:.3g}" for figure in figures)) for name, way in ways.items()),
    )


def _attention(result: _Result) -> Iterator[str]:
    yield from _turns(result, "times sdpa")


def _sft(result: _Result) -> Iterator[str]:
    yield from _rows(
        ("form", "seconds of a step", "tokens of a step", "tokens per second", "peak MB"),
        (
            (
                form,
                _spread(seconds),
                str(result["tokens per step"][form]),
                str(result["tokens per second"][form]),
                str(result["peak MB above the model"][form]),
            )
            for form, seconds in result["seconds"].items()
        ),
    )
    ratio = result["ours over stock, tokens per second"]
    yield f"\nOurs over stock, tokens per second, median of turns: {ratio}."


_TABLES: dict[str, Callable[[_Result], Iterator[str]]] = {
    "learner_pass.py": _against_trl,
    "rl_step.py": _step,
    "rollouts.py": _rollouts,
    "memory.py": _memory,
    "precision.py": _precision,
    "attention_mass.py": _attention,
    "sft.py": _sft,
}
