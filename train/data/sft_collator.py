"""Batches for fine-tuning: rows of video and text, padded, with the loss on the completion only.

A thread prepares the next batches while the model works on the present one. They are predicted
from the order of the epoch; a wrong prediction costs time, never correctness.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from train.data.model_inputs import VideoInputs, pad_prompts
from train.data.sft_dataset import TokenRow

IGNORED = -100
Batch = dict[str, Tensor]


class SftCollator:
    """Rows -> one padded batch: the prompts' tensors followed by completions, and `labels`.

    `labels` [B, L] are the token ids of completions, end token included, and -100 elsewhere.
    """

    def __init__(self, inputs: VideoInputs, *, pad_to_multiple_of: int | None = None) -> None:
        self._inputs = inputs
        self._pad_id = int(inputs.tokenizer.pad_token_id)
        self._multiple = pad_to_multiple_of or 1

    def __call__(self, rows: Sequence[TokenRow]) -> Batch:
        """Raises MediaError, which names the file, for a row whose medium cannot be read."""
        prompts = self._inputs.prompts([row.prompt for row in rows])
        labelled = [
            _with_completion(prompt, torch.from_numpy(row.completion_ids))
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        labels = [row.pop("labels") for row in labelled]
        batch = pad_prompts(labelled, pad_token_id=self._pad_id, side="right")
        width = batch["input_ids"].shape[1]
        batch["labels"] = torch.cat(
            [
                torch.nn.functional.pad(own, (0, width - own.shape[1]), value=IGNORED)
                for own in labels
            ]
        )
        return self._rounded_up(batch, -width % self._multiple)

    def _rounded_up(self, batch: Batch, space: int) -> Batch:
        if space:
            values = {"input_ids": self._pad_id, "labels": IGNORED}
            for name in ("input_ids", "labels", "attention_mask", "mm_token_type_ids"):
                batch[name] = torch.nn.functional.pad(
                    batch[name], (0, space), value=values.get(name, 0)
                )
            if "position_ids" in batch:
                batch["position_ids"] = torch.nn.functional.pad(batch["position_ids"], (0, space))
        return batch


def _with_completion(prompt: Mapping[str, Tensor], completion: Tensor) -> dict[str, Tensor]:
    """The prompt's inputs followed by a completion; positions continue from the prompt's last."""
    row = dict(prompt)
    ids = completion[None]
    row["labels"] = torch.cat([torch.full_like(prompt["input_ids"], IGNORED), ids], dim=1)
    row["input_ids"] = torch.cat([prompt["input_ids"], ids], dim=1)
    ones = torch.ones_like(ids)
    row["attention_mask"] = torch.cat([prompt["attention_mask"], ones], dim=1)
    row["mm_token_type_ids"] = torch.cat([prompt["mm_token_type_ids"], 0 * ones], dim=1)
    if "position_ids" in prompt:
        positions = prompt["position_ids"]
        further = positions[:, :, -1:] + torch.arange(1, len(completion) + 1)
        row["position_ids"] = torch.cat([positions, further], dim=2)
    return row


class BatchesAhead:
    """A trainer's collator: batches of row numbers; the next batches are prepared meanwhile.

    `expect` sets the order of an epoch; this process takes every `num_processes`-th batch of
    `batch_size` rows in it. At most `num_ahead` batches wait.
    """

    def __init__(
        self,
        prepare: Callable[[Sequence[int]], Batch],
        *,
        batch_size: int,
        num_ahead: int,
        num_processes: int = 1,
    ) -> None:
        self._prepare = prepare
        self._batch_size = batch_size
        self._num_ahead = num_ahead
        self._stride = batch_size * num_processes
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._order: Sequence[int] = ()
        self._places: dict[int, int] = {}
        self._waiting: dict[tuple[int, ...], Future[Batch]] = {}

    def expect(self, order: Sequence[int]) -> None:
        """Set the rows of the epoch that begins, in order."""
        self._order = order
        self._places = {row: place for place, row in enumerate(order)}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """The batch of these rows (`{"row": number}`); raises what its preparation raises."""
        numbers = tuple(int(row["row"]) for row in rows)
        prepared = self._waiting.pop(numbers, None)
        if prepared is None:
            prepared = Future()
            prepared.set_result(self._alone(numbers))
        self._look_ahead(numbers[0])
        return prepared.result()

    def close(self) -> None:
        """Stop the thread; batches that it has not started are dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _alone(self, numbers: Sequence[int]) -> Batch:
        """One preparation at a time: tokenizers are not thread-safe."""
        with self._lock:
            return self._prepare(numbers)

    def _look_ahead(self, row: int) -> None:
        place = self._places.get(row)
        if place is None:  # a row of another dataset (held out): the next ones are unknown
            return
        expected = []
        for number in range(1, self._num_ahead + 1):
            first = place + number * self._stride
            if batch := tuple(self._order[first : first + self._batch_size]):
                expected.append(batch)
        for batch in [batch for batch in self._waiting if batch not in expected]:
            self._waiting.pop(batch).cancel()
        for batch in expected:
            if batch not in self._waiting:
                self._waiting[batch] = self._thread.submit(self._alone, batch)
