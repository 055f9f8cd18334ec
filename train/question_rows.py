"""Questions as numbered rows, each with its prompt; one that cannot be shown costs one row."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from media.frames import MediaError
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import Reason

_log = logging.getLogger(__name__)


class QuestionRows:
    """The questions of a run. `prompt_of` is `train.video_inputs.VideoInputs.prompt`.

    Where a file cannot be read, the next row that can be shown stands in for its question: in every
    process and after every resume the same one. `lost` tells which rows, and why. `prefetch`
    (`train.frame_loader.FrameLoader.prefetch`) begins to read files that are wanted soon.
    """

    def __init__(
        self,
        questions: Sequence[VideoQuestion],
        prompt_of: Callable[[VideoQuestion], Mapping[str, Tensor]],
        *,
        prefetch: Callable[[Iterable[MediaRef]], None] | None = None,
    ) -> None:
        self._questions, self._prompt_of, self._prefetch = questions, prompt_of, prefetch
        self._announced: set[int] = set()
        self.lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def announce(self, batch: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, int]]:
        """Rows that a data loader hands out, a batch ahead of training: their files are begun.

        The only value of each is the number of a row. A trainer's collator; returns `batch`.
        """
        rows = {number for row in batch for number in row.values()}
        new, self._announced = sorted(rows - self._announced), rows
        if self._prefetch is not None:
            self._prefetch([ref for row in new for ref in self._questions[row].media])
        return batch

    def take(self, row: int) -> tuple[VideoQuestion, Mapping[str, Tensor]]:
        """The question that row `row` (from 0) stands for, and its prompt.

        Raises MediaError where no row can be shown.
        """
        for distance in range(len(self)):
            number = (row + distance) % len(self)
            if number in self.lost:
                continue
            try:
                return self._questions[number], self._prompt_of(self._questions[number])
            except MediaError as error:
                self.lost[number] = str(error)
                _log.warning(
                    "row %d cannot be shown and is left out (%d so far): %s",
                    self._questions[number].row,
                    len(self.lost),
                    error,
                )
        raise MediaError(
            Reason.UNDECODABLE,
            f"none of the {len(self)} questions can be shown; the first: {self.lost[0]}",
        )
