"""`OUT/answers.jsonl`: every answer as soon as it is made, so that a killed run loses none.

The first line holds what the answers were made with; each further line is one answer. Lines are
appended a batch at a time and reach the disk before the next batch begins. Only the last line can
be cut short by a kill: it is removed and its question answered again.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from cli.config import UsageError
from schemas.questions import VideoQuestion
from train.evaluation.predictions import Prediction

ANSWERS_FILE = "answers.jsonl"
_FIELDS = ("output", "num_tokens", "token_counts", "finish_reason", "error", "shown")


class AnswerLog:
    """The answers of one evaluation, by question id. Use it in a `with` statement.

    `made_with` is what an answer depends on besides the options (weights, prompt). Raises
    UsageError where the folder's answers were made with something else, belong to other questions,
    or are being written by another process. `retry_errors` forgets answers that ended in an error.
    """

    def __init__(
        self,
        folder: Path,
        questions: Sequence[VideoQuestion],
        made_with: Mapping[str, str],
        *,
        retry_errors: bool = False,
    ) -> None:
        self._path = folder / ANSWERS_FILE
        self._lock = FileLock(folder / f".{ANSWERS_FILE}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{folder} is being written by another evaluation; wait for its end or use another "
                "--output-dir"
            ) from None
        try:
            lines = self._whole_lines()
            self._check_head(lines[:1], dict(made_with))
            self._answers = self._matched(lines[1:], questions, retry_errors)
        except BaseException:
            self._lock.release()
            raise
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._head = [] if lines else [{"made_with": dict(made_with)}]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        self._lock.release()

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, question: VideoQuestion) -> bool:
        return question.question_id in self._answers

    def get(self, question: VideoQuestion) -> Prediction | None:
        """The answer to a question, if it was made."""
        return self._answers.get(question.question_id)

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Write answers to the disk, except those to questions that have one already."""
        new = [one for one in predictions if one.question_id not in self._answers]
        rows = [
            {
                "question_id": one.question_id,
                "row": one.question.row,
                **{name: getattr(one, name) for name in _FIELDS},
            }
            for one in new
        ]
        self._write([*self._head, *rows])
        self._head = []
        self._answers |= {one.question_id: one for one in new}

    def _write(self, values: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
        # A reply may hold lone surrogates, which UTF-8 cannot encode.
        data = memoryview("".join(lines).encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(self._file, data) :]
        os.fsync(self._file)

    def _whole_lines(self) -> list[Any]:
        """All complete lines; a last line that a kill cut short is removed from the file."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        if end < len(data):
            os.truncate(self._path, end)
        values = []
        for number, line in enumerate(data[:end].splitlines(), 1):
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise UsageError(
                    f"{self._path}, line {number}, is no JSON ({error}): the file was edited; "
                    "remove the line, or use another --output-dir"
                ) from None
        return values

    def _check_head(self, head: Sequence[Any], made_with: dict[str, str]) -> None:
        if not head:
            return
        before = head[0].get("made_with") if isinstance(head[0], dict) else None
        if not isinstance(before, dict):
            raise UsageError(
                f"{self._path} does not begin with what its answers were made with; use another "
                "--output-dir"
            )
        for name, now in made_with.items():
            if before.get(name) != now:
                raise UsageError(
                    f"the answers in {self._path.parent} were made with other {name} "
                    f"({before.get(name)}, now {now}); use another --output-dir"
                )

    def _matched(
        self, lines: Sequence[Any], questions: Sequence[VideoQuestion], retry_errors: bool
    ) -> dict[str, Prediction]:
        by_id = {question.question_id: question for question in questions}
        rows = {question.row for question in questions}
        answers: dict[str, Prediction] = {}
        for number, line in enumerate(lines, 2):
            if not _is_answer(line):
                raise UsageError(
                    f"{self._path}, line {number}, is no answer of this command: the file was "
                    "edited; remove the line, or use another --output-dir"
                )
            question = by_id.get(line["question_id"])
            if question is None and line["row"] in rows:
                raise UsageError(
                    f"{self._path.parent} holds an answer to another question in row "
                    f"{line['row']}: the question file has changed; use another --output-dir"
                )
            # A row beyond --limit keeps its answer for the run that raises it again.
            if question is None or (retry_errors and line["error"]):
                continue
            fields = {name: line[name] for name in _FIELDS} | {"shown": tuple(line["shown"])}
            answers[question.question_id] = Prediction(question, **fields)
        return answers


def _is_answer(line: Any) -> bool:
    """Whether a line has all that an answer is read from."""
    return (
        isinstance(line, dict)
        and isinstance(line.get("question_id"), str)
        and isinstance(line.get("row"), int)
        and isinstance(line.get("shown"), list)
        and all(name in line for name in _FIELDS)
    )
