"""Message Batches as the pretend server keeps them: in memory, ended by the clock or by order."""

import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from servers.anthropic_api import ApiError, bad_request

MAX_REQUESTS = 100_000
MAX_BYTES = 256 * 1024 * 1024

_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass
class Batch:
    """One batch. `results` are made when it ends: (custom_id, result) in the order given out."""

    batch_id: str
    number: int
    created_at: float
    ends_at: float
    requests: list[dict[str, Any]] = field(repr=False)
    order: Literal["given", "reversed", "shuffled"]
    is_canceled: bool = False
    results: list[tuple[str, dict[str, Any]]] | None = field(default=None, repr=False)


Answerer = Callable[[str, dict[str, Any]], dict[str, Any]]


class BatchStore:
    """All batches of this server. `answer` turns (custom_id, params) into a result object."""

    def __init__(self, answer: Answerer) -> None:
        self._answer = answer
        self._batches: dict[str, Batch] = {}
        self.seconds = 0.0
        self.order: Literal["given", "reversed", "shuffled"] = "given"
        self.max_requests = MAX_REQUESTS
        self.max_bytes = MAX_BYTES

    def create(self, body: Any) -> Batch:
        """Take a new batch; raises ApiError when it breaks a limit."""
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            raise bad_request("requests: at least one request is required")
        if len(requests) > self.max_requests:
            raise bad_request(f"requests: {len(requests)} exceed the limit {self.max_requests}")
        seen: set[str] = set()
        for number, request in enumerate(requests):
            custom_id = request.get("custom_id") if isinstance(request, dict) else None
            if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
                raise bad_request(
                    f"requests.{number}.custom_id: String should match pattern"
                    " '^[a-zA-Z0-9_-]{1,64}$'"
                )
            if custom_id in seen:
                raise bad_request(f"requests.{number}.custom_id: duplicate custom_id {custom_id}")
            if not isinstance(request.get("params"), dict):
                raise bad_request(f"requests.{number}.params: Field required")
            seen.add(custom_id)
        number = len(self._batches)
        now = time.time()
        batch = Batch(
            f"msgbatch_{number:06d}", number, now, now + self.seconds, requests, self.order
        )
        self._batches[batch.batch_id] = batch
        return batch

    def get(self, batch_id: str) -> Batch:
        """The batch, brought up to date; raises ApiError when there is none."""
        batch = self._batches.get(batch_id)
        if batch is None:
            raise ApiError(404, "not_found_error", f"batch {batch_id} not found")
        if batch.results is None and (batch.is_canceled or time.time() >= batch.ends_at):
            self._end(batch)
        return batch

    def cancel(self, batch_id: str) -> Batch:
        """Cancel what is not yet done; ends at once."""
        batch = self.get(batch_id)
        batch.is_canceled = batch.results is None
        return self.get(batch_id)

    def end_all(self) -> None:
        """End every batch now."""
        for batch in self._batches.values():
            batch.ends_at = 0.0

    def _end(self, batch: Batch) -> None:
        results = [
            (
                request["custom_id"],
                {"type": "canceled"}
                if batch.is_canceled
                else self._answer(request["custom_id"], request["params"]),
            )
            for request in batch.requests
        ]
        if batch.order == "reversed":
            results.reverse()
        elif batch.order == "shuffled":
            random.Random(batch.number).shuffle(results)
        batch.results = results

    def describe(self, batch: Batch, base_url: str) -> dict[str, Any]:
        """The batch as the API shows it."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if batch.results is None:
            counts["processing"] = len(batch.requests)
        for _, result in batch.results or []:
            counts[result["type"]] += 1
        is_ended = batch.results is not None
        results_url = f"{base_url}/v1/messages/batches/{batch.batch_id}/results"
        return {
            "id": batch.batch_id,
            "type": "message_batch",
            "processing_status": "ended" if is_ended else "in_progress",
            "request_counts": counts,
            "created_at": _time(batch.created_at),
            "expires_at": _time(batch.created_at, timedelta(hours=24)),
            "ended_at": _time(max(batch.created_at, batch.ends_at)) if is_ended else None,
            "archived_at": None,
            "cancel_initiated_at": _time(time.time()) if batch.is_canceled else None,
            "results_url": results_url if is_ended else None,
        }

    def page(self, query: dict[str, str], base_url: str) -> dict[str, Any]:
        """A page of the list, newest first, as `limit`, `after_id` and `before_id` ask."""
        limit = int(query.get("limit", "20"))
        if not 1 <= limit <= 1000:
            raise bad_request("limit: Input should be between 1 and 1000")
        batches = sorted(self._batches.values(), key=lambda batch: -batch.number)
        ids = [batch.batch_id for batch in batches]
        for name in ("after_id", "before_id"):
            if name in query and query[name] not in ids:
                raise bad_request(f"{name}: {query[name]} is not a batch")
        if "after_id" in query:
            batches = batches[ids.index(query["after_id"]) + 1 :]
        elif "before_id" in query:
            batches = batches[: ids.index(query["before_id"])][-limit:]
        shown = batches[:limit]
        return {
            "data": [self.describe(self.get(batch.batch_id), base_url) for batch in shown],
            "has_more": len(batches) > limit,
            "first_id": shown[0].batch_id if shown else None,
            "last_id": shown[-1].batch_id if shown else None,
        }

    async def stream(self, batch_id: str) -> AsyncIterator[bytes]:
        """The results of an ended batch as JSON lines; a `line` stands for a whole one."""
        for custom_id, result in self.get(batch_id).results or []:
            if "line" in result:
                yield f"{result['line']}\n".encode() if result["line"] else b""
                continue
            yield (json.dumps({"custom_id": custom_id, "result": result}) + "\n").encode()


def _time(seconds: float, later: timedelta = timedelta()) -> str:
    return (datetime.fromtimestamp(seconds, UTC) + later).isoformat().replace("+00:00", "Z")
