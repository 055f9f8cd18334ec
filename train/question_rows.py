"""Questions as numbered rows, each with its prompt; one that cannot be shown costs one row."""

import logging
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from media.frames import MediaError
from schemas.questions import VideoQuestion

_log = logging.getLogger(__name__)


class QuestionRows:
    """The questions of a run. `prompt_of` is `train.video_inputs.VideoInputs.prompt`.

    Where a file cannot be read, the next row that can be shown stands in for its question: in every
    process and after every resume the same one. `lost` tells which rows, and why.
    """

    def __init__(
        self,
        questions: Sequence[VideoQuestion],
        prompt_of: Callable[[VideoQuestion], Mapping[str, Tensor]],
    ) -> None:
        self._questions, self._prompt_of = questions, prompt_of
        self.lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._questions)

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
                failure = error
                self.lost[number] = str(error)
                _log.warning(
                    "row %d cannot be shown and is left out (%d so far): %s",
                    self._questions[number].row,
                    len(self.lost),
                    error,
                )
        raise MediaError(
            failure.reason, f"none of the {len(self)} questions can be shown; the last: {failure}"
        )
