"""The questions of a run as numbered rows with prompts; an unreadable file costs one row."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from media.frames import MediaError
from schemas.questions import MediaRef, VideoQuestion
from schemas.samples import Reason

_log = logging.getLogger(__name__)


class PromptDataset:
    """Questions by row number, each with its prompt.

    `prompt_of` is `train.data.model_inputs.VideoInputs.prompt`. Where a row's file cannot be read,
    the next readable row replaces it: the same one in every process and after every resume. `lost`
    maps the rows that were replaced to the reason. `prefetch`
    (`train.data.frame_loader.FrameLoader.prefetch`) starts to decode files that are needed soon.
    """

    def __init__(
        self,
        questions: Sequence[VideoQuestion],
        prompt_of: Callable[[VideoQuestion], Mapping[str, Tensor]],
        *,
        prefetch: Callable[[Iterable[MediaRef]], None] | None = None,
    ) -> None:
        self._questions, self._prompt_of, self._prefetch_media = questions, prompt_of, prefetch
        self._prefetched: set[int] = set()
        self.lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def prefetch(self, batch: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, int]]:
        """Start to decode the files of a batch; a trainer's collator, so it returns `batch`.

        Each row of `batch` has one value, the number of a row. Data loaders collate a batch before
        training needs it.
        """
        rows = {number for row in batch for number in row.values()}
        new, self._prefetched = sorted(rows - self._prefetched), rows
        if self._prefetch_media is not None:
            self._prefetch_media([ref for row in new for ref in self._questions[row].media])
        return batch

    def __getitem__(self, row: int) -> tuple[VideoQuestion, Mapping[str, Tensor]]:
        """The question of row `row` (from 0), or of its replacement, and its prompt.

        Raises MediaError where no row is readable.
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
                    "row %d cannot be read and is left out (%d so far): %s",
                    self._questions[number].row,
                    len(self.lost),
                    error,
                )
        raise MediaError(
            Reason.UNDECODABLE,
            f"none of the {len(self)} questions can be shown; the first: {self.lost[0]}",
        )
