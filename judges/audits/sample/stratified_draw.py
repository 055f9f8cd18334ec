"""Which rows to draw: stratified, few per video, and with known inclusion probabilities.

Three pure steps. `allocation` decides how many rows each stratum should give, proportionally, with
a floor. `inclusion_probabilities` turns that into a probability for every row, so that no video is
expected to give more than its cap. `dependent_rounding` draws rows with exactly these
probabilities, the allocated number per stratum, and never more than the cap from a video.
"""

import random
from collections.abc import Hashable, Mapping, Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray

_NEGLIGIBLE = 1e-9
_MAX_ROUNDS = 200


def allocation(populations: Mapping[str, int], size: int, least: int) -> dict[str, float]:
    """Expected rows per stratum: proportional to its population, but at least `least`.

    At most half of the sample goes into these floors: with very many strata they are lowered, below
    one row if need be, and then the expected numbers are fractions.
    """
    total = sum(populations.values())
    size = min(size, total)
    if not size:
        return dict.fromkeys(populations, 0.0)
    share = size / (2 * len(populations))
    floors = {name: min(count, least, share) for name, count in populations.items()}

    def at_rate(rate: float) -> dict[str, float]:
        return {
            name: min(count, max(floors[name], rate * count)) for name, count in populations.items()
        }

    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at_rate(middle).values()) < size else (low, middle)
    wanted = at_rate(high)
    return _whole_numbers(wanted, size) if min(wanted.values()) >= 1 else wanted


def inclusion_probabilities(
    strata: Sequence[str],
    videos: Sequence[str],
    wanted: Mapping[str, float],
    max_per_video: int,
) -> list[float]:
    """Each row's probability: equal within a stratum, except where the video's cap forbids it.

    Rows of a video that would give more than `max_per_video` are scaled down together, and what the
    stratum misses goes to its other rows, again and again until neither changes. Every probability
    is above 0 and every video's sum at most the cap; a stratum's sum falls short of `wanted` only
    where the caps leave no room.
    """
    stratum_names, stratum = np.unique(np.asarray(strata), return_inverse=True)
    video = np.unique(np.asarray(videos), return_inverse=True)[1]
    targets = np.array([wanted[name] for name in stratum_names])
    chances = (targets / np.bincount(stratum))[stratum]

    def within_caps(chances: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = np.bincount(video, chances)
        scale: NDArray[np.float64] = np.minimum(
            1.0, max_per_video / np.maximum(expected, _NEGLIGIBLE)
        )
        return chances * scale[video]

    chances = within_caps(chances)
    for _ in range(_MAX_ROUNDS):
        is_full = np.bincount(video, chances) >= max_per_video - _NEGLIGIBLE
        is_free = ~is_full[video] & (chances < 1 - _NEGLIGIBLE)
        free = np.bincount(stratum, chances * is_free, minlength=len(targets))
        missing = targets - np.bincount(stratum, chances, minlength=len(targets))
        growth = np.where(free > 0, 1 + np.maximum(missing, 0) / np.maximum(free, 1e-300), 1.0)
        grown = within_caps(np.where(is_free, np.minimum(1.0, chances * growth[stratum]), chances))
        is_settled = np.abs(grown - chances).max(initial=0) < _NEGLIGIBLE
        chances = grown
        if is_settled:
            break
    return [float(chance) for chance in chances]


def dependent_rounding(
    left: Sequence[Hashable],
    right: Sequence[Hashable],
    chances: Sequence[float],
    rng: random.Random,
) -> list[bool]:
    """Draw row i, an edge between `left[i]` and `right[i]`, with probability exactly `chances[i]`.

    Gandhi, Khuller, Parthasarathy, Srinivasan, "Dependent rounding and its applications to
    approximation algorithms", J. ACM 53 (2006), sec. 2: the number of rows drawn from
    a node is the sum of their chances, rounded down or up. Chances are moved along cycles and
    maximal paths, up and down in turns, until they are 0 or 1.
    """
    graph = _Graph(left, right, chances, rng)
    while (walk := graph.cycle_or_path()) is not None:
        graph.round(walk, rng)
    return graph.is_drawn


class _Graph:
    """The rows that are not decided yet, by the two nodes that each connects."""

    def __init__(
        self,
        left: Sequence[Hashable],
        right: Sequence[Hashable],
        chances: Sequence[float],
        rng: random.Random,
    ) -> None:
        self._chances = list(chances)
        self._ends = [((0, a), (1, b)) for a, b in zip(left, right, strict=True)]
        self._rows_of: dict[Hashable, list[int]] = {}
        self._places: dict[tuple[int, Hashable], int] = {}
        order = list(range(len(self._chances)))
        rng.shuffle(order)
        for row in order:
            if _NEGLIGIBLE < self._chances[row] < 1 - _NEGLIGIBLE:
                for node in self._ends[row]:
                    rows = self._rows_of.setdefault(node, [])
                    self._places[row, node] = len(rows)
                    rows.append(row)
        self._leaves = [node for node, rows in self._rows_of.items() if len(rows) == 1]

    @property
    def is_drawn(self) -> list[bool]:
        return [chance > 0.5 for chance in self._chances]

    def cycle_or_path(self) -> list[int] | None:
        """Rows of a cycle, or of a path that cannot go on at either end; None when all is decided.

        From a leaf the walk ends in another leaf or closes; without leaves it must close.
        """
        node = self._start()
        if node is None:
            return None
        walk: list[int] = []
        seen = {node: 0}
        while True:
            last = walk[-1] if walk else None
            row = next((row for row in self._rows_of[node][:2] if row != last), None)
            if row is None:
                return walk
            walk.append(row)
            one, other = self._ends[row]
            node = other if node == one else one
            if node in seen:
                return walk[seen[node] :]
            seen[node] = len(walk)

    def round(self, walk: list[int], rng: random.Random) -> None:
        """Move chances up and down in turns until one row of the walk, at least, is decided."""
        chances = self._chances
        rising, falling = walk[::2], walk[1::2]
        up = min([1 - chances[row] for row in rising] + [chances[row] for row in falling])
        down = min([chances[row] for row in rising] + [1 - chances[row] for row in falling])
        step = up if rng.random() * (up + down) < down else -down
        for row in rising:
            chances[row] += step
        for row in falling:
            chances[row] -= step
        for row in walk:
            if not _NEGLIGIBLE < chances[row] < 1 - _NEGLIGIBLE:
                self._decide(row)

    def _start(self) -> Hashable | None:
        while self._leaves:
            leaf = self._leaves[-1]  # stays there: its row need not be the one that gets decided
            if len(self._rows_of[leaf]) == 1:
                return leaf
            self._leaves.pop()
        while self._rows_of:
            node = next(reversed(self._rows_of))
            if self._rows_of[node]:
                return node
            self._rows_of.popitem()
        return None

    def _decide(self, row: int) -> None:
        self._chances[row] = float(round(self._chances[row]))
        for node in self._ends[row]:
            rows = self._rows_of[node]
            place, moved = self._places.pop((row, node)), rows.pop()
            if moved != row:
                rows[place] = moved
                self._places[moved, node] = place
            if len(rows) == 1:
                self._leaves.append(node)


def _whole_numbers(wanted: Mapping[str, float], size: int) -> dict[str, float]:
    """Whole numbers that add up to `size`; the largest remainders are rounded up."""
    whole = {name: floor(value + _NEGLIGIBLE) for name, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: (whole[name] - wanted[name], name))
    for name in by_remainder[: size - sum(whole.values())]:
        whole[name] += 1
    return {name: float(count) for name, count in whole.items()}
