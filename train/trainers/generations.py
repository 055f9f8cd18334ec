"""Generations that a rollout engine samples: with which weights, and which one is ahead.

At a generation boundary the completions of this generation are waited for, the engine gets the
learner's weights, and the next generation is begun with them, so that it is sampled while this one
is learned from: one step off policy. Without `ahead` the weights go first, and everything is
sampled with them.

    rows of the next generation     computed from TRL's sampler, and compared with those that come
    a resumed run                   samples again what was ahead, with the weights of its checkpoint
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from schemas.questions import VideoQuestion
from train.rollouts.streaming import Drawn, PendingDraw, RolloutEngine, RolloutServerError
from train.trainers.checkpoints import EpochSampler
from train.trainers.distributed import any_process, is_first_process

T = TypeVar("T")


@dataclass
class Generation:
    """The questions of this process's part of a generation batch."""

    rows: list[int]
    """Numbers of the rows that were asked for."""
    questions: list[VideoQuestion]
    prompts: Sequence[Mapping[str, Tensor]]
    seeds: list[int]


class EngineDraws:
    """Draws generations from an engine. Every process calls each method equally often.

    `start` begins the completions of a generation. Raises RolloutServerError in every process where
    the engine fails one.
    """

    def __init__(
        self, engine: RolloutEngine, *, ahead: bool, start: Callable[[Generation], PendingDraw]
    ) -> None:
        self._engine, self._is_ahead, self._start = engine, ahead, start
        self._step: int | None = None
        self._next: tuple[Generation, PendingDraw] | None = None

    def take(self, rows: Sequence[int]) -> Generation | None:
        """The generation that is under way, which must be that of `rows`; None without one."""
        if self._next is None:
            return None
        generation = self._next[0]
        if generation.rows != list(rows):
            raise RuntimeError(
                f"rows {generation.rows} were sampled ahead, but rows {list(rows)} came next: the"
                " order of rows is not TRL's sampler's; give --rollouts-ahead 0"
            )
        return generation

    def draw(self, generation: Generation, model: Any, step: int) -> Drawn:
        """The completions of a generation: those under way, or new ones with these weights."""
        if self._next is None:
            self._send(model, step)
            self._next = generation, in_all_processes(lambda: self._start(generation))
        pending, self._next = self._next[1], None
        return in_all_processes(lambda: self._drawn(pending))

    def _drawn(self, pending: PendingDraw) -> Drawn:
        """All of it, by the weights that were sent: another run may have replaced them meanwhile"""
        drawn = pending.wait()
        if is_first_process():
            self._engine.refuse_other_weights()
        return drawn

    def draw_ahead(self, prepare: Callable[[], Generation | None], model: Any, step: int) -> None:
        """Begin the next generation with these weights, where one is to be sampled ahead."""
        if not self._is_ahead:
            return
        generation = prepare()
        if generation is not None:
            self._send(model, step)
            self._next = generation, in_all_processes(lambda: self._start(generation))

    def _send(self, model: Any, step: int) -> None:
        """The weights of a step, once."""
        if self._step == step:
            return
        in_all_processes(lambda: self._engine.pause() if is_first_process() else None)
        in_all_processes(lambda: self._engine.send_weights(model))
        in_all_processes(lambda: self._engine.resume() if is_first_process() else None)
        self._step = step


def in_all_processes(work: Callable[[], T]) -> T:
    """The work's result. Raises RolloutServerError in every process where it fails in one."""
    results, problem = list[T](), ""
    try:
        results.append(work())
    except RolloutServerError as error:
        problem = str(error)
    if any_process(bool(problem)):
        raise RolloutServerError(problem or "the rollout server failed another process")
    return results[0]


class RowOrder:
    """Which rows this process's generations have, in TRL's order.

    `epoch_order` gives all rows of an epoch as TRL's sampler yields them: each generation of
    `generation_size` rows `repeats` times in a row, each of its rows `group_size` times.
    """

    def __init__(
        self,
        epoch_order: Callable[[int], Sequence[int]],
        *,
        generation_size: int,
        repeats: int,
        group_size: int,
        process: int,
        num_processes: int,
    ) -> None:
        self._epoch_order = epoch_order
        self._step = generation_size * repeats
        own = generation_size // num_processes
        self._own = slice(process * own, (process + 1) * own, group_size)
        self._known: dict[int, list[list[int]]] = {}

    def after(self, rows: Sequence[int], epoch: int) -> list[int]:
        """The rows that come after `rows`, which came in this epoch.

        Raises RuntimeError where they are none of the epoch's.
        """
        generations = self._generations(epoch)
        if list(rows) not in generations:
            raise RuntimeError(
                f"rows {list(rows)} are no generation of epoch {epoch} in TRL's order, so the next"
                " one is not known; give --rollouts-ahead 0"
            )
        place = generations.index(list(rows)) + 1
        return generations[place] if place < len(generations) else self._generations(epoch + 1)[0]

    def _generations(self, epoch: int) -> list[list[int]]:
        if epoch not in self._known:
            order = list(self._epoch_order(epoch))
            firsts = range(0, len(order), self._step)
            self._known = {
                epoch: [order[first : first + self._step][self._own] for first in firsts]
            }
        return self._known[epoch]


def row_order(trainer: Any, sampler: Callable[[], Any]) -> RowOrder:
    """The order of a TRL trainer's rows; `sampler` makes a new one of its samplers."""
    args = trainer.args
    return RowOrder(
        lambda epoch: list(EpochSampler(sampler(), epoch=lambda: epoch)),
        generation_size=args.generation_batch_size,
        repeats=args.steps_per_generation * trainer.num_iterations,
        group_size=trainer.num_generations,
        process=trainer.accelerator.process_index,
        num_processes=trainer.accelerator.num_processes,
    )
