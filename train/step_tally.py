"""Numbers of a step that are known only together: over its groups, and over all processes.

Every process fills a tally and gives one row of numbers; the rows of all of them make the metrics.
So a step needs one exchange, whatever it measures.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

Kind = Literal["mean", "std", "sum", "min", "max"]
_NUMBERS = 3  # count, sum or extreme, sum of squares


class StepTally:
    """Values by name; `kinds` says how those of a name are put together.

    mean and std: over all values; std is the sample's, absent for a single value. sum, min, max: of
    all values. NaN is a missing value and left out.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = dict(kinds)
        self._values: dict[str, list[float]] = {name: [] for name in kinds}

    def add(self, name: str, value: float) -> None:
        """Add one value. Raises KeyError for an unknown name."""
        if not math.isnan(value):
            self._values[name].append(float(value))

    def row(self) -> list[float]:
        """This process's numbers: equally many, in the same order, in every process."""
        numbers: list[float] = []
        for name, values in self._values.items():
            match self._kinds[name]:
                case "mean" | "std" | "sum":
                    total = math.fsum(values)
                case "min":
                    total = min(values, default=math.inf)
                case "max":
                    total = max(values, default=-math.inf)
            numbers += [len(values), total, math.fsum(value * value for value in values)]
        return numbers

    def metrics(self, rows: Sequence[Sequence[float]]) -> dict[str, float]:
        """The values of all processes together, given their rows; names without one are absent."""
        found = {}
        for place, (name, kind) in enumerate(self._kinds.items()):
            parts = [row[place * _NUMBERS : (place + 1) * _NUMBERS] for row in rows]
            count = sum(part[0] for part in parts)
            if count and (value := _combined(kind, count, parts)) is not None:
                found[name] = value
        return found


def _combined(kind: Kind, count: float, parts: Sequence[Sequence[float]]) -> float | None:
    match kind:
        case "min":
            return min(part[1] for part in parts)
        case "max":
            return max(part[1] for part in parts)
    total = math.fsum(part[1] for part in parts)
    if kind == "sum":
        return total
    mean = total / count
    if kind == "mean":
        return mean
    if count < 2:
        return None
    squares = math.fsum(part[2] for part in parts)
    return math.sqrt(max(squares - count * mean * mean, 0.0) / (count - 1))
