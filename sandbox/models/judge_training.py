"""Trains a tiny Llama to judge: its tokenizer, its batches, its training loop.

The verdict alone is too weak a signal: one bit per prompt, from which the model only learns to
count statements. So the oracle also labels every value in a statement (does the question or the
answer name it?) and every end of a statement (does the answer follow by now?). The head for values
is discarded after training; the saved model is a plain Llama.
"""

import math
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from judges.sufficiency import escape_fences, prompt_file
from sandbox.models.judge_examples import VALUE, Example, Examples
from sandbox.models.tiny_models import TinySize, build_llama
from sandbox.models.tiny_tokenizer import END_TOKEN, build_tokenizer
from sandbox.world.clips import WorldConfig

if TYPE_CHECKING:
    from torch import Tensor

SIZE = TinySize(
    width=128, layers=3, heads=4, key_value_heads=4, mlp_width=256, weight_std=128**-0.5
)
_REPLY = "<judgement>{}</judgement>"
_VERDICTS = {True: "Yes", False: "No"}
_TAGS = ("<judgement>", "</judgement>")
_TURNS = ("user\n", "assistant\n")
_OPTION = r"\n?\b[A-J]\."
_SPLIT = re.compile(rf"( ?{VALUE.pattern}|{_OPTION}|(?<=[.?!])(?= ))")
_WARM_UP_STEPS = 40
_LAST_RATE = 0.05
_IGNORED = -100
_VERDICT_WEIGHT = 2.0


@dataclass(frozen=True)
class TrainingSchedule:
    """Length and learning rate of a training run."""

    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 2e-3
    limit_seconds: float = math.inf


class StepLosses(NamedTuple):
    """One step's losses, each a mean over a batch: per target token, per word."""

    number: int
    seconds: float
    verdict_loss: float
    word_loss: float


def judge_tokenizer(examples: Sequence[Example]) -> Any:
    """A tokenizer for the judge's prompt: fixed wording is one token.

    The prompt's fixed text, 250 words, becomes four tokens; sentences are cut at the values that
    fill them. Any other text can still be encoded.
    """
    template, _ = prompt_file("sufficiency")
    texts = [template.replace("{media}", medium) for medium in ("video", "image")]
    fixed = {part for text in texts for part in re.split(r"\{\w+\}", text)}
    written = [text for example in examples for text in _between(example.request.text, fixed)]
    pieces = {piece.rstrip(" ") for text in written for piece in _SPLIT.split(text)}
    phrases = {piece for piece in pieces if len(piece.split()) > 1 or VALUE.search(piece)}
    options = {piece for piece in pieces if re.fullmatch(_OPTION, piece)}
    tokenizer = build_tokenizer(written, vocab_size=1024)
    tokenizer.add_tokens(sorted({*fixed, *phrases, *options, *_TAGS, *_VERDICTS.values(), *_TURNS}))
    return tokenizer


def _between(prompt: str, fixed: Iterable[str]) -> list[str]:
    """The text between the fixed parts: question, answer, observation."""
    return re.split("|".join(map(re.escape, sorted(fixed, key=len, reverse=True))), prompt)


class Batch(NamedTuple):
    """Token ids, padded on the right, with their training targets.

    `targets` are next tokens, and after each statement the verdict so far; `_IGNORED` elsewhere.
    `words` are (row, position) pairs of the words that `word_labels` mark as asked and as answer.
    """

    ids: "Tensor"
    targets: "Tensor"
    words: "Tensor"
    word_labels: "Tensor"


class BatchBuilder:
    """Turns examples into batches."""

    def __init__(self, tokenizer: Any, world: WorldConfig) -> None:
        self._tokenizer, self._world = tokenizer, world
        self._verdict_ids = {
            is_yes: tokenizer.convert_tokens_to_ids(word) for is_yes, word in _VERDICTS.items()
        }

    def batch(self, examples: Sequence[Example]) -> Batch:
        """The examples with their verdicts and the oracle's labels of their parts."""
        import torch

        rows = [self._row(example) for example in examples]
        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), self._tokenizer.pad_token_id)
        targets = torch.full((len(rows), width), _IGNORED)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            for position, token in row.targets.items():
                targets[i, position] = token
        words = [(i, position) for i, row in enumerate(rows) for position in row.words]
        labels = [pair for row in rows for pair in row.words.values()]
        return Batch(
            ids,
            targets,
            torch.tensor(words, dtype=torch.long).reshape(-1, 2),
            torch.tensor(labels, dtype=torch.float32).reshape(-1, 2),
        )

    def _row(self, example: Example) -> "_Row":
        messages = [{"role": "user", "content": example.request.text}]
        prompt = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        reply = _REPLY.format(_VERDICTS[example.is_sufficient]) + END_TOKEN
        encoded = self._tokenizer(
            prompt + reply, add_special_tokens=False, return_offsets_mapping=True
        )
        ids = encoded.input_ids
        starts = [start for start, _ in encoded.offset_mapping]
        begin = prompt.rindex(escape_fences(example.observation))
        words, verdicts = example.marks(self._world)

        def position(place: int) -> int:
            return bisect_right(starts, begin + place) - 1

        first = bisect_right(starts, len(prompt)) - 1
        targets = {place: ids[place + 1] for place in range(first - 1, len(ids) - 1)}
        for verdict in verdicts:
            targets[position(verdict.end - 1)] = self._verdict_ids[verdict.is_enough]
        marked = {position(word.start): (word.is_asked, word.is_answer) for word in words}
        return _Row(ids, targets, marked)


class _Row(NamedTuple):
    ids: list[int]
    targets: dict[int, int]
    words: dict[int, tuple[bool, bool]]


def train_judge(
    tokenizer: Any,
    examples: Examples,
    world: WorldConfig,
    schedule: TrainingSchedule,
    *,
    seed: int,
    report: Callable[[StepLosses], None],
) -> Any:
    """A Llama trained from random weights; the same arguments give the same model.

    If `schedule.limit_seconds` ends it early, the learning rate has still decayed by then.
    """
    import torch
    from torch.nn import functional

    builder = BatchBuilder(tokenizer, world)
    model = build_llama(tokenizer, SIZE, seed).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        word_head = torch.nn.Linear(SIZE.width, 2)
    parameters = [*model.parameters(), *word_head.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    started = time.monotonic()
    for number in range(schedule.steps):
        seconds = time.monotonic() - started
        done = max(number / schedule.steps, seconds / schedule.limit_seconds)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _rate(number, done)
        batch = builder.batch(examples.draw(schedule.batch_size))
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        is_target = batch.targets != _IGNORED
        logits = model.lm_head(hidden[is_target])
        verdict_loss = functional.cross_entropy(logits, batch.targets[is_target])
        marks = word_head(hidden[batch.words[:, 0], batch.words[:, 1]])
        word_loss = functional.binary_cross_entropy_with_logits(marks, batch.word_labels)
        optimizer.zero_grad()
        loss = _VERDICT_WEIGHT * verdict_loss + word_loss
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        report(StepLosses(number + 1, seconds, verdict_loss.item(), word_loss.item()))
    return model.eval()


def _rate(number: int, done: float) -> float:
    """Warm-up, then a cosine from 1 to `_LAST_RATE`."""
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return min(1.0, (number + 1) / _WARM_UP_STEPS) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
