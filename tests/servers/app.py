"""What the pretend server does with a request: route, check, fail on demand, answer, log."""

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TextIO

from servers import anthropic_api, openai_api
from servers.anthropic_api import ApiError
from servers.batches import BatchStore
from servers.faults import CONNECTION_FAULTS, STATUS_FAULTS, Fault, FaultPlan
from servers.replies import Answer, Brain, Prompt, RuleBrain
from servers.wire import HttpRequest, HttpResponse

COMPLETION_PATHS = ("/v1/messages", "/v1/chat/completions")


def key_hash(key: str) -> str:
    """How the log shows a key: enough to compare, nothing to use."""
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""


class ModelServer:
    """Everything behind the sockets."""

    def __init__(
        self,
        brain: Brain,
        plan: FaultPlan,
        *,
        log: TextIO | None = None,
        dump_images: Path | None = None,
        api_key: str | None = None,
        models: frozenset[str] = frozenset(),
        latency_ms: float = 0.0,
        max_in_flight: int | None = None,
    ) -> None:
        self.plan = plan
        self.latency_ms = latency_ms
        self.max_in_flight = max_in_flight
        self.batches = BatchStore(self._batch_result)
        self._brain = self._base_brain = brain
        self._log = log
        self._dump_images = dump_images
        self._api_key = api_key
        self._models = models
        self._attempts: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._hangs_end = math.inf
        self._in_flight = 0
        self._most_in_flight = 0
        self._number = 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one HTTP request and log it."""
        if request.path == "/control":
            return self._control(request)
        self._number += 1
        record: dict[str, Any] = {
            "number": self._number,
            "time": time.time(),
            "method": request.method,
            "path": request.path,
            "key_hash": key_hash(anthropic_api.presented_key(request.headers)),
            "headers": sorted(request.headers),
            "retry_count": request.headers.get("x-stainless-retry-count"),
            "body_bytes": len(request.body),
        }
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        request_id = f"req_{self._number:08d}"
        is_openai = "/chat/" in request.path or request.path.endswith("/models")
        try:
            response = await self._route(request, record, request_id)
        except ApiError as error:
            record["outcome"] = f"status_{error.status}"
            record["error"] = error.message
            content = (
                openai_api.error_object(error.kind, error.message)
                if is_openai
                else anthropic_api.error_object(error.kind, error.message, request_id)
            )
            response = _json(content, error.status)
        finally:
            self._in_flight -= 1
        if request.is_client_gone():
            record["client_gone"] = True
        record["seconds"] = round(time.time() - record["time"], 6)
        self._write(record)
        name = "x-request-id" if is_openai else "request-id"
        return replace(response, headers=(*response.headers, (name, request_id)))

    async def _route(
        self, request: HttpRequest, record: dict[str, Any], request_id: str
    ) -> HttpResponse:
        path, method = request.path.rstrip("/"), request.method
        if path.startswith("/v1/messages"):
            anthropic_api.check_headers(request.headers, self._api_key)
        else:
            openai_api.check_headers(request.headers, self._api_key)
        if (method, path) == ("GET", "/v1/models"):
            return _json(openai_api.models_reply(self._models))
        if path in COMPLETION_PATHS and method == "POST":
            return await self._complete(request, record, request_id)
        fault = self.plan.scripted(path, request.body.decode(errors="replace"), is_completion=False)
        if fault is not None and (response := await self._fault_response(request, fault, record)):
            return response
        if (method, path) == ("POST", "/v1/messages/count_tokens"):
            body = anthropic_api.parse_json(request.body)
            prompt = anthropic_api.read_prompt(body, models=self._models, counting=True)
            self._describe(record, prompt, request.body)
            record["outcome"] = "counted"
            return _json({"input_tokens": prompt.input_tokens})
        if path.startswith("/v1/messages/batches"):
            response = self._batch_route(request, path, record)
            if fault is not None and fault.kind == "drop":
                return replace(response, cut="before")
            return response
        raise ApiError(404, "not_found_error", f"no such path: {method} {path}")

    async def _complete(
        self, request: HttpRequest, record: dict[str, Any], request_id: str
    ) -> HttpResponse:
        body = anthropic_api.parse_json(request.body)
        is_openai = request.path.endswith("/chat/completions")
        prompt = (
            openai_api.read_prompt(body, models=self._models)
            if is_openai
            else anthropic_api.read_prompt(body, models=self._models)
        )
        body_hash = self._describe(record, prompt, request.body)
        record["parameters"] = {
            name: value for name, value in body.items() if name not in ("messages", "system")
        }
        record["attempt"] = self._attempts[body_hash]
        fault = self.plan.scripted(request.path, prompt.text, is_completion=True)
        if fault is None:
            fault = self.plan.drawn(body_hash, self._attempts[body_hash])
        self._attempts[body_hash] += 1
        record["fault"] = fault.kind
        if self.max_in_flight is not None and self._in_flight > self.max_in_flight:
            fault = Fault("rate_limit", retry_after="0")
        elif fault.kind == "ok" and self.latency_ms:
            await asyncio.sleep(self.latency_ms / 1000)
        if response := await self._fault_response(request, fault, record):
            return response
        answer = self._answer(prompt, body_hash, fault)
        record["outcome"] = fault.kind if fault.kind != "drop_middle" else "dropped_middle"
        reply = (openai_api.completion_reply if is_openai else anthropic_api.message_reply)(
            prompt, answer, f"msg_{request_id}"
        )
        record["usage"] = reply["usage"]
        record["reply"] = answer.text
        return _json(reply, cut="middle" if fault.kind == "drop_middle" else "")

    def _answer(self, prompt: Prompt, body_hash: str, fault: Fault) -> Answer:
        answer = self._brain(replace(prompt, served=self._served[body_hash]))
        if isinstance(answer, str):
            answer = Answer(answer)
        if fault.kind == "empty":
            answer = replace(answer, text="", stop="end")
        elif fault.kind in ("truncated", "refused"):
            answer = Answer(answer.text, "truncated" if fault.kind == "truncated" else "refused")
        else:
            self._served[body_hash] += 1
        return answer

    async def _fault_response(
        self, request: HttpRequest, fault: Fault, record: dict[str, Any]
    ) -> HttpResponse | None:
        """The reply of a fault that needs no model; None for the others."""
        if fault.kind in STATUS_FAULTS:
            status, kind, message = STATUS_FAULTS[fault.kind]
            message = (fault.message or message).replace(
                "{key}", anthropic_api.presented_key(request.headers)
            )
            record["outcome"] = f"status_{fault.status or status}"
            waits = {"retry-after": fault.retry_after, "retry-after-ms": fault.retry_after_ms}
            headers = tuple((name, value) for name, value in waits.items() if value is not None)
            content = anthropic_api.error_object(kind, message, "req_fault")
            return _json(content, fault.status or status, headers=headers)
        if fault.kind not in CONNECTION_FAULTS or fault.kind == "drop_middle":
            return None
        if fault.kind == "drop" and "batches" in request.path:
            return None
        record["outcome"] = fault.kind
        if fault.kind == "malformed":
            broken = '{"id": "msg_1", "type": "message", "content": [{"te'
            return HttpResponse(fault.status or 200, (fault.message or broken).encode())
        if fault.kind == "trickle":
            return HttpResponse(chunks=_trickle(fault.seconds))
        if fault.kind == "huge":
            return HttpResponse(fault.status or 200, chunks=_filler(fault.num_bytes))
        if fault.kind == "redirect":
            place = (("location", fault.message or "/"),)
            return HttpResponse(fault.status or 307, b"", place)
        if fault.kind == "hang":
            end = time.monotonic() + fault.seconds
            while min(end, self._hangs_end) > time.monotonic() and not request.is_client_gone():
                await asyncio.sleep(0.05)
        return HttpResponse(cut="before")

    def _batch_route(self, request: HttpRequest, path: str, record: dict[str, Any]) -> HttpResponse:
        base_url = f"http://{request.headers.get('host', '127.0.0.1')}"
        parts = path.removeprefix("/v1/messages/batches").strip("/").split("/")
        record["outcome"] = "ok"
        if parts == [""] and request.method == "POST":
            body = anthropic_api.parse_json(request.body, self.batches.max_bytes)
            batch = self.batches.create(body)
            record["batch_id"] = batch.batch_id
            record["custom_ids"] = [item["custom_id"] for item in batch.requests]
            return _json(self.batches.describe(batch, base_url))
        if parts == [""]:
            return _json(self.batches.page(request.query, base_url))
        record["batch_id"] = parts[0]
        if len(parts) == 1 and request.method == "GET":
            return _json(self.batches.describe(self.batches.get(parts[0]), base_url))
        if parts[1:] == ["cancel"] and request.method == "POST":
            return _json(self.batches.describe(self.batches.cancel(parts[0]), base_url))
        if parts[1:] == ["results"] and request.method == "GET":
            if self.batches.get(parts[0]).results is None:
                raise ApiError(404, "not_found_error", "the batch has not ended")
            stream = self.batches.stream(parts[0])
            return HttpResponse(chunks=stream, content_type="application/x-jsonl")
        raise ApiError(404, "not_found_error", f"no such path: {request.method} {path}")

    def _batch_result(self, custom_id: str, params: dict[str, Any]) -> dict[str, Any]:
        record: dict[str, Any] = {
            "time": time.time(),
            "path": "batch-request",
            "custom_id": custom_id,
        }
        try:
            prompt = anthropic_api.read_prompt(params, models=self._models)
        except ApiError as error:
            return self._batch_error(record, error)
        body_hash = self._describe(record, prompt, json.dumps(params).encode())
        fault = self.plan.scripted("batch-request", prompt.text, is_completion=True)
        if fault is None:
            fault = self.plan.drawn(body_hash, self._attempts[body_hash], in_batch=True)
        self._attempts[body_hash] += 1
        if fault.kind in ("errored", "invalid"):
            kind = "api_error" if fault.kind == "errored" else "invalid_request_error"
            return self._batch_error(record, ApiError(0, kind, fault.message or fault.kind))
        if fault.kind in ("expired", "canceled"):
            self._write({**record, "outcome": fault.kind})
            return {"type": fault.kind}
        if fault.kind in ("line", "no_line"):
            self._write({**record, "outcome": fault.kind})
            line = (fault.message or "").replace("{custom_id}", custom_id)
            return {"type": "succeeded", "line": line if fault.kind == "line" else ""}
        answer = self._answer(prompt, body_hash, fault)
        message = anthropic_api.message_reply(prompt, answer, f"msg_{custom_id}")
        message["usage"]["service_tier"] = "batch"
        self._write(
            {**record, "outcome": fault.kind, "usage": message["usage"], "reply": answer.text}
        )
        return {"type": "succeeded", "message": message}

    def _batch_error(self, record: dict[str, Any], error: ApiError) -> dict[str, Any]:
        self._write({**record, "outcome": "errored", "error": error.message})
        content = anthropic_api.error_object(error.kind, error.message, "req_batch")
        return {"type": "errored", "error": content}

    def _describe(self, record: dict[str, Any], prompt: Prompt, body: bytes) -> str:
        body_hash = hashlib.sha256(body).hexdigest()
        record |= {
            "body_hash": body_hash,
            "model": prompt.model,
            "system": prompt.system,
            "text": prompt.text,
            "order": prompt.order,
            "images": [
                {"width": image.width, "height": image.height, "sha256": image.sha256}
                for image in prompt.images
            ],
            "max_tokens": prompt.max_tokens,
        }
        if self._dump_images is not None:
            for image in prompt.images:
                (self._dump_images / f"{image.sha256}.{image.format}").write_bytes(image.data)
        return body_hash

    def _write(self, record: dict[str, Any]) -> None:
        self._outcomes[record.get("outcome", "")] += 1
        if self._log is not None:
            self._log.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._log.flush()

    def _control(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            try:
                self._configure(json.loads(request.body or b"{}"))
            except (ValueError, TypeError, KeyError) as error:
                return _json({"error": f"{type(error).__name__}: {error}"}, 400)
        return _json(
            {
                "requests": self._number,
                "in_flight": self._in_flight,
                "most_in_flight": self._most_in_flight,
                "outcomes": dict(self._outcomes),
            }
        )

    def _configure(self, changes: dict[str, Any]) -> None:
        self._hangs_end = 0.0 if changes.pop("end_hangs", False) else math.inf
        if changes.pop("reset", False):
            self.plan = FaultPlan()
            self._brain = self._base_brain
            self.batches = BatchStore(self._batch_result)
            self.latency_ms, self.max_in_flight = 0.0, None
            self._number = self._most_in_flight = 0
            for counter in (self._attempts, self._served, self._outcomes):
                counter.clear()
        for name, value in changes.items():
            if name in ("latency_ms", "max_in_flight"):
                setattr(self, name, value)
            elif name in ("seed", "retry_after"):
                setattr(self.plan, name, value)
            elif name == "rates":
                self.plan.set_rates(value)
            elif name == "script":
                self.plan.set_script(value)
            elif name == "final":
                self.plan.final = frozenset(value)
            elif name == "replies":
                self._brain = RuleBrain(value, self._base_brain)
            elif name in ("batch_seconds", "batch_order", "batch_max_requests", "batch_max_bytes"):
                setattr(self.batches, name.removeprefix("batch_"), value)
            elif name == "end_batches":
                self.batches.end_all()
            else:
                raise ValueError(f"unknown control {name!r}")


async def _trickle(seconds: float) -> AsyncIterator[bytes]:
    """A reply that comes byte by byte and never ends."""
    yield b"{"
    while True:
        await asyncio.sleep(seconds)
        yield b" "


async def _filler(num_bytes: int) -> AsyncIterator[bytes]:
    """A JSON object of this many bytes."""
    yield b'{"filler": "'
    for _ in range(num_bytes // 65536):
        yield b"x" * 65536
    yield b'"}'


def _json(
    content: Any,
    status: int = 200,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    cut: Literal["", "before", "middle"] = "",
) -> HttpResponse:
    return HttpResponse(status, json.dumps(content).encode(), headers, cut=cut)
