"""Calls whose replies a test writes, at the seam behind which transport, cache and money begin."""

from judges.backends.base import ChatRequest, Reply, StopReason, Usage
from judges.backends.calls import CallFailure, CallResult, StopRequested
from media.frames import EncodedFrames
from media.sampling import FrameSpec

Answer = str | CallFailure | StopRequested


class ScriptedCalls:
    """Answers with `script` in turn and with its last word from then on; keeps the requests."""

    def __init__(self, *script: Answer) -> None:
        self._script = list(script)
        self.requests: list[ChatRequest] = []

    async def call(self, request: ChatRequest) -> CallResult:
        self.requests.append(request)
        answer = self._script[min(len(self.requests), len(self._script)) - 1]
        if isinstance(answer, StopRequested):
            raise answer
        outcome: Reply | CallFailure
        outcome = Reply(answer, StopReason.END, Usage()) if isinstance(answer, str) else answer
        key = f"{request.step}-{request.question_id}-{len(self.requests)}"
        return CallResult(key, outcome)


def trace(answer: str, *, observation: str = "a red ball rolls", think: str = "so it is") -> str:
    """A trace as a teacher writes it."""
    return (
        f"<observation>{observation}</observation> <think>{think}</think><answer>{answer}</answer>"
    )


def judgement(word: str) -> str:
    """A judge's reply."""
    return f"Let me see. <judgement>{word}</judgement>"


def a_clip(media_id: str = "media-1", times: tuple[float, ...] = (0.0, 1.25)) -> EncodedFrames:
    """A video of 3 seconds, of which these frames were taken."""
    return EncodedFrames(
        media_id=media_id,
        kind="video",
        spec=FrameSpec(),
        jpegs=tuple(b"jpeg %d" % number for number in range(len(times))),
        indices=tuple(round(10 * time) for time in times),
        times=times,
        width=160,
        height=90,
        source_width=320,
        source_height=180,
        num_source_frames=30,
        duration_seconds=3.0,
        reader="decord",
    )
