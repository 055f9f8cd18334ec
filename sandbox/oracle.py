"""The sandbox's scripted teacher and judge: `oracle:SEED[,wrong=p][,insufficient=p]...`.

The prompt decides its role. It reads what happens in a clip from the truth files that
`sandbox.clips` wrote under the media root. It errs at the given rates: randomness is a hash of the
seed and the call's content, so neither order nor concurrency changes a reply.

    teacher   wrong         the answer is wrong (misperceived, or seen right and concluded wrong)
              insufficient  the answer is right, the observation leaves out what shows it
              malformed     the tags are broken
              leak          the observation states the answer
        systematic label noise:
              confusion     green is taken for yellow, a circle for a square
              off_by_one    times and numbers are concluded one too high
              late          time spans (of the grounding template) are one second late
    judge     false_yes     an insufficient observation is judged sufficient
              false_no      a sufficient one is judged insufficient
"""

import asyncio
import random
import sys
import threading
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from cli.config import UsageError
from judges.backends.base import (
    BackendInfo,
    BackendUnavailableError,
    ChatRequest,
    FinalError,
    Reply,
    StopReason,
    Usage,
)
from judges.backends.registry import BackendOptions
from sandbox.teacher.faults import (
    ErrorRates,
    confused,
    delayed,
    malformed,
    misperceived,
    off_by_one,
    other_value,
    read_rates,
    without_crucial,
)
from sandbox.teacher.traces import need, write_trace
from sandbox.world.facts import Fact
from sandbox.world.questions import (
    GroundTruth,
    Query,
    answer_value,
    crucial_cells,
    crucial_facts,
    crucial_seconds,
    is_sufficient,
    option_values,
    parse_query,
    solution_of,
)
from sandbox.world.rendered import RenderedWorld
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion

_READING = threading.Lock()


async def open_backend(rest: str, *, spec: str, options: BackendOptions) -> "OracleBackend":
    """The oracle of the sandbox under `options.media_root`."""
    seed, rates = read_rates(rest, spec)
    if options.media_root is None or not (options.media_root / "world.json").is_file():
        raise BackendUnavailableError(
            f"{spec} knows sandbox clips only, and there is no world.json under the media root"
            f" {options.media_root}: render one with python -m sandbox.clips --out DIR and give"
            " --media-root DIR"
        )
    return OracleBackend(options.media_root, seed=seed, rates=rates, rest=rest, spec=spec)


class OracleBackend:
    """Teacher or judge, depending on the prompt. Knows the questions under its media root."""

    def __init__(self, root: Path, *, seed: int, rates: ErrorRates, rest: str, spec: str) -> None:
        self._world = RenderedWorld(root)
        self.info = BackendInfo(spec=spec, provider="oracle", model=rest, endpoint=self._world.id)
        self._root, self._seed, self._rates = root, seed, rates
        self._config = self._world.config
        self._opening = asyncio.Lock()
        self._known: dict[str, tuple[str, Query]] | None = None
        self._truth = lru_cache(maxsize=16_384)(self._read_truth)

    async def complete(self, request: ChatRequest) -> Reply:
        """The scripted reply. Raises FinalError for a question that the sandbox did not ask."""
        if self._known is None:
            async with self._opening:
                if self._known is None:
                    self._known = await asyncio.to_thread(_known_questions, self._root)
        prompt = request.text
        truth = self._look_up(request, prompt)
        if "<judgement>" in prompt:
            text = self._judge(request, prompt, truth)
        elif "<observations>" in prompt:
            text = self._commit(prompt, truth)
        else:
            text = self._teach(request, prompt, truth)
        words = text.split(" ")
        cut = len(words) > request.max_tokens
        return Reply(
            text=" ".join(words[: request.max_tokens]) if cut else text,
            stop=StopReason.MAX_TOKENS if cut else StopReason.END,
            usage=Usage(_num_words(request), min(len(words), request.max_tokens)),
            model="sandbox oracle",
        )

    async def count_tokens(self, request: ChatRequest) -> int | None:
        """Words: the oracle's tokens."""
        return _num_words(request)

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        """The prompt's words, and as many as are allowed in reply."""
        return _num_words(request), request.max_tokens

    async def aclose(self) -> None:
        """Nothing is open."""

    def _look_up(self, request: ChatRequest, prompt: str) -> GroundTruth:
        assert self._known is not None
        entry = self._known.get(request.question_id)
        if entry is None:
            raise FinalError(
                f"the sandbox's oracle knows only the questions in {self._root / 'questions.json'};"
                f" {request.question_id or 'a request without question_id'} is none of them"
            )
        path, query = entry
        if query.text not in prompt:
            raise FinalError(
                f"the prompt does not ask {query.text!r}, which is question {request.question_id}"
            )
        return self._truth(path, query._replace(variant=0))

    def _read_truth(self, path: str, query: Query) -> GroundTruth:
        try:
            clip, facts = self._world.clip(path), self._world.facts(path)
        except UsageError as error:
            raise FinalError(str(error)) from None
        value = answer_value(query, facts, self._config)
        if value is None:
            raise FinalError(f"{path} has no answer to {query.text!r}: render the sandbox anew")
        cells = crucial_cells(query, clip, facts)
        crucial = frozenset(crucial_facts(query, facts))
        return GroundTruth(query, facts, value, crucial, crucial_seconds(cells))

    def _random_bits(self, what: str, *content: object) -> int:
        """64 random bits that depend on the seed and the call's content, nothing else."""
        text = "\x1f".join(map(str, (self._seed, what, *content)))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")

    def _teach(self, request: ChatRequest, prompt: str, truth: GroundTruth) -> str:
        template = "grounding" if "<time>" in prompt else "think-answer"
        template = "p2r" if "<observation>" in prompt else template
        query, facts, value, config = truth.query, truth.facts, truth.value, self._config
        about = (request.question_id, request.draw)
        fault = self._rates.fault(self._random_bits("fault", *about) / 2**64)
        rng = random.Random(self._random_bits("how", *about))
        if fault == "none":
            facts, value = self._with_label_noise(truth, rng)
            seconds = truth.seconds
            if rng.random() < self._rates.late:
                seconds = delayed(seconds, config)
            return write_trace(template, query, facts, value, config, seconds=seconds)
        aside = ""
        if fault == "wrong":
            seen = misperceived(query, facts, value, config, rng) if rng.random() < 0.5 else None
            facts, value = seen or (facts, other_value(query, value, config, rng))
        elif fault == "insufficient":
            facts = without_crucial(query, facts)
        elif fault == "leak":
            aside = f"The answer is {solution_of(query, value, config).rstrip('.')}."
        text = write_trace(
            template, query, facts, value, config, seconds=truth.seconds, aside=aside
        )
        return malformed(text, rng) if fault == "malformed" else text

    def _with_label_noise(
        self, truth: GroundTruth, rng: random.Random
    ) -> tuple[tuple[Fact, ...], str]:
        """Statements and answer of a teacher with systematic errors."""
        query, rates, config = truth.query, self._rates, self._config
        facts = confused(query, truth.facts, rates.confusion, rng)
        value = answer_value(query, facts, config)
        options = option_values(query, config)
        if value is None or (options and value not in options):
            facts, value = truth.facts, truth.value
        if rng.random() < rates.off_by_one:
            value = off_by_one(query, value, config)
        return facts, value

    def _judge(self, request: ChatRequest, prompt: str, truth: GroundTruth) -> str:
        """The verdict of `is_sufficient`, flipped at the rates of errors."""
        stated = prompt[prompt.index(truth.query.text) :]
        supports = is_sufficient(truth, stated, self._config)
        rate = self._rates.false_no if supports else self._rates.false_yes
        about = (request.question_id, request.draw, stated)
        says_yes = supports != (self._random_bits("verdict", *about) / 2**64 < rate)
        wanted = need(truth.query)
        if says_yes:
            return (
                f"The observations tell {wanted}, and from that the correct answer follows."
                " <judgement>Yes</judgement>"
            )
        return (
            f"The observations do not show {wanted}, so the correct answer cannot be deduced."
            " <judgement>No</judgement>"
        )

    def _commit(self, prompt: str, truth: GroundTruth) -> str:
        """An answer from the observations alone.

        A judge with false_yes guesses right here, so that its errors are those of the verdict that
        is requested afterwards.
        """
        stated = prompt[prompt.index(truth.query.text) :]
        wanted = need(truth.query)
        if is_sufficient(truth, stated, self._config) or self._rates.false_yes:
            return f"The observations tell {wanted}. <answer>{truth.value}</answer>"
        return f"The observations do not show {wanted}. <answer>cannot be deduced</answer>"


def _num_words(request: ChatRequest) -> int:
    return len(request.text.split()) + len(request.system.split())


def _known_questions(root: Path) -> dict[str, tuple[str, Query]]:
    """The questions under `root`, read once for all backends of this process."""
    file = root / "questions.json"
    try:
        stat = file.stat()
    except OSError as error:
        raise FinalError(
            f"the sandbox's questions are gone: {error}; render it anew with python -m"
            f" sandbox.clips --out {root}"
        ) from None
    with _READING:
        return _read_known(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _read_known(file: Path, mtime_ns: int, size: int) -> dict[str, tuple[str, Query]]:
    """Every question of the sandbox: its id to its clip's path and what it asks."""
    known: dict[str, tuple[str, Query]] = {}
    for question in read_questions(file, format="video-r1"):
        query = parse_query(question.problem) if isinstance(question, VideoQuestion) else None
        if query is not None and isinstance(question, VideoQuestion):
            known[question.question_id] = (sys.intern(question.media[0].path), query)
    return known
