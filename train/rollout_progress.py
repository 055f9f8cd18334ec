"""Completions read along while they are drawn, so that a judge can begin before they end."""

from collections.abc import Callable, Sequence

from torch import Tensor

from schemas.questions import VideoQuestion
from train.segments import TokenBytes

Progress = Callable[[Tensor], None]
"""Told now and then, while completions grow, of all rows' tokens so far: long [rows, steps]. What
stands behind a row's end token means nothing."""


class ReadAlong:
    """A `Progress` that shows each row's text so far to `show`, until that says it has seen enough.

    Rows are `group_size` completions of each question, in order. A row that has ended, or of which
    enough was seen, is not read on.
    """

    def __init__(
        self,
        questions: Sequence[VideoQuestion],
        group_size: int,
        end_ids: Sequence[int],
        token_bytes: TokenBytes,
        show: Callable[[VideoQuestion, str], bool],
    ) -> None:
        self._questions, self._group_size = questions, group_size
        self._end_ids, self._token_bytes, self._show = frozenset(end_ids), token_bytes, show
        self._read = dict.fromkeys(range(len(questions) * group_size), b"")
        self._num_seen = 0

    def __call__(self, tokens: Tensor) -> None:
        """Read what is new of the rows that are still read."""
        fresh = tokens[:, self._num_seen :].tolist()
        self._num_seen = tokens.shape[1]
        for row, read in list(self._read.items()):
            end = next((n for n, each in enumerate(fresh[row]) if each in self._end_ids), None)
            read += self._token_bytes.join(fresh[row][:end])
            question = self._questions[row // self._group_size]
            has_seen_enough = self._show(question, read.decode("utf-8", errors="replace"))
            if has_seen_enough or end is not None:
                del self._read[row]
            else:
                self._read[row] = read
