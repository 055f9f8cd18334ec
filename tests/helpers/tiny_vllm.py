"""A stand-in for a vLLM server: its routes at the wire, and a tiny model in this process behind.

It answers from what a request holds (text, stored frames, sampling), as a server does, and takes
weights without reading them: its model is the one that is evaluated. Pieces of it fail on demand.
"""

import contextlib
import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from helpers.rollout_wire import CHAT, Wire, rollout_wire
from helpers.training_world import tiny_model_folder

from media.sampling import FrameSpec
from schemas.annotations.reader import read_questions
from schemas.questions import MediaRef, VideoQuestion
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.loading import load_policy, load_processor
from train.rollouts.sampler import sample_rollouts
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.clip_format import unpacked

Reply = tuple[int, bytes]


@dataclass
class TinyVllm:
    """A server about the questions of one file; `fault` may answer a chat in its place."""

    wire: Wire
    inputs: VideoInputs
    model: Any
    questions: list[VideoQuestion]
    version: str = "default"
    chats: list[dict[str, Any]] = field(default_factory=list)
    fault: Callable[[int, dict[str, Any]], Reply | None] = lambda number, body: None
    lock: Lock = field(default_factory=Lock)
    refs: dict[bytes, MediaRef] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.wire.url

    def script(self) -> None:
        """Answer vLLM's routes. A group of weights that has one member needs no other side."""
        refs = {ref for question in self.questions for ref in question.media}
        self.refs = {self.inputs.loader.encoded(ref).jpegs[0]: ref for ref in refs}
        self.wire.says("/get_world_size", {"world_size": 0})
        for route in ("/pause", "/resume", "/init_weight_transfer_engine"):
            self.wire.says(route, {})
        for route in ("/start_weight_update", "/update_weights"):
            self.wire.says(route, {})
        self.wire.answers["/finish_weight_update"] = self._finish
        self.wire.answers["/weight_info"] = lambda _: self._json({"weight_version": self.version})
        self.wire.answers[CHAT] = self._chat

    def _json(self, value: Any) -> Reply:
        return 200, json.dumps(value).encode()

    def _finish(self, body: dict[str, Any]) -> Reply:
        self.version = body["weight_version"]
        return self._json({})

    def _chat(self, body: dict[str, Any]) -> Reply:
        with self.lock:
            self.chats.append(body)
            return self.fault(len(self.chats), body) or (200, self._stream(body))

    def _stream(self, body: dict[str, Any]) -> bytes:
        *media, text = body["messages"][0]["content"]
        (question,) = [each for each in self.questions if each.problem in text["text"]]
        prompt = self.inputs.prompt(question, media=[self._ref(part) for part in media])
        drawn = sample_rollouts(
            self.model,
            [prompt],
            group_size=body["n"],
            sampling=Sampling(
                body["max_completion_tokens"],
                body["temperature"],
                body["top_p"],
                body["top_k"],
                repetition_penalty=body["repetition_penalty"],
            ),
            end_ids=body["stop_token_ids"],
            seeds=[body["seed"]],
        )
        events: list[Any] = [
            {"prompt_token_ids": prompt["input_ids"][0].tolist(), "choices": []},
        ]
        for number, tokens in enumerate(drawn.tokens[0]):
            zeros = torch.zeros(len(tokens))
            logprobs = drawn.logprobs[0][number] if drawn.logprobs else zeros
            content = [{"logprob": value} for value in logprobs.tolist()]
            choice = {"index": number, "token_ids": tokens.tolist()}
            events.append({"choices": [choice | {"logprobs": {"content": content}}]})
        lines = [f"data: {json.dumps(each)}\n\n" for each in [*events, "end"]]
        return "".join(lines[:-1]).encode() + b"data: [DONE]\n\n"

    def _ref(self, part: dict[str, Any]) -> MediaRef:
        """The file whose stored frames came."""
        kind = part["type"].removesuffix("_url")
        data = b64decode(part[part["type"]]["url"].partition(",")[2])
        return self.refs[data if kind == "image" else unpacked(data).jpegs[0]]


@contextlib.contextmanager
def tiny_vllm(family: str, questions: Path) -> Iterator[TinyVllm]:
    """A server about the readable questions of a file; the frames are `helpers.evaluations`'."""
    folder = tiny_model_folder(family)
    rows = [each for each in read_questions(questions) if isinstance(each, VideoQuestion)]
    with (
        rollout_wire() as wire,
        FrameLoader(
            questions.parent, spec=FrameSpec("uniform:4", 56 * 56), cache_dir=None
        ) as loader,
    ):
        inputs = VideoInputs(load_processor(folder), loader, TEMPLATES["p2r"])
        server = TinyVllm(wire, inputs, load_policy(folder, device="cpu"), rows)
        server.script()
        yield server
