"""The sandbox's scripted teacher and judge: `oracle:SEED[,wrong=p][,insufficient=p]...`.

It reads the prompt for what is asked of it, and takes what can be seen in a clip from the truth
files that `sandbox.clips` wrote under the media root. It errs as often as told: every draw hashes
the seed and what the call is about, so neither order nor concurrency changes a reply.

    teacher   wrong         the answer is wrong (misperceived, or seen right and concluded wrong)
              insufficient  the answer is right, the observation leaves out what shows it
              malformed     the tags are broken
              leak          the observation states the answer
              confusion     a habit: green is taken for yellow, a circle for a square
              off_by_one    a habit: times and numbers are concluded one too many
              late          a habit: time spans (of the grounding template) are told a second late
    judge     false_yes     an insufficient observation is called sufficient
              false_no      a sufficient one is called insufficient
"""

import asyncio
import json
import random
import sys
import threading
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

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
from sandbox.facts import Fact, facts_of, read_facts
from sandbox.faults import (
    Fault,
    confused,
    malformed,
    misperceived,
    off_by_one,
    other_value,
    told_late,
    without_crucial,
)
from sandbox.questions import (
    Query,
    answer_value,
    crucial_cells,
    crucial_facts,
    crucial_seconds,
    option_values,
    parse_query,
    solution_of,
)
from sandbox.traces import need, write_trace
from sandbox.world import Clip, WorldConfig
from schemas.annotations import read_questions
from schemas.questions import VideoQuestion

_READING = threading.Lock()


@dataclass(frozen=True)
class Rates:
    """How often the oracle errs, each as a probability per call."""

    wrong: float = 0.0
    insufficient: float = 0.0
    malformed: float = 0.0
    leak: float = 0.0
    confusion: float = 0.0
    off_by_one: float = 0.0
    late: float = 0.0
    false_yes: float = 0.0
    false_no: float = 0.0

    def fault(self, draw: float) -> Fault:
        """The teacher's fault for a draw in [0, 1)."""
        kinds: tuple[Fault, ...] = ("wrong", "insufficient", "malformed", "leak")
        for kind in kinds:
            draw -= getattr(self, kind)
            if draw < 0:
                return kind
        return "none"


class Known(NamedTuple):
    """What the truth says about one question."""

    query: Query
    facts: tuple[Fact, ...]
    value: str
    crucial: frozenset[Fact]
    seconds: list[list[float]]


def read_rates(rest: str, spec: str) -> tuple[int, Rates]:
    """Seed and rates from `7,wrong=0.15`; raises BackendUnavailableError."""
    seed, *settings = rest.split(",")
    names = [field.name for field in fields(Rates)]
    given: dict[str, float] = {}
    try:
        number = int(seed)
        for setting in settings:
            name, _, value = setting.partition("=")
            given[name] = float(value)
    except ValueError:
        number, given = 0, {"": 0.0}
    rates = Rates(**given) if set(given) <= set(names) else None
    if (
        rates is None
        or len(given) < len(settings)
        or not all(0 <= value <= 1 for value in given.values())
        or rates.wrong + rates.insufficient + rates.malformed + rates.leak > 1 + 1e-9
    ):
        raise BackendUnavailableError(
            f"{spec!r}: write oracle:SEED with rates between 0 and 1, the teacher's adding up to at"
            f" most 1, for example oracle:7,wrong=0.1,leak=0.05; rates are {', '.join(names)}"
        )
    return number, rates


def is_shown(known: Known, text: str, config: WorldConfig) -> bool:
    """The oracle's verdict: `text` states every crucial fact, and its facts give the answer."""
    stated = read_facts(text)
    return known.crucial <= set(stated) and answer_value(known.query, stated, config) == known.value


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
    """Teacher or judge, whichever the prompt asks for. Knows the questions under its media root."""

    def __init__(self, root: Path, *, seed: int, rates: Rates, rest: str, spec: str) -> None:
        world = json.loads((root / "world.json").read_text(encoding="utf-8"))
        self.info = BackendInfo(
            spec=spec, provider="oracle", model=rest, endpoint=str(world["world_id"])
        )
        self._root, self._seed, self._rates = root, seed, rates
        self._config = WorldConfig.from_json(world["world"])
        self._opening = asyncio.Lock()
        self._known: dict[str, tuple[str, Query]] | None = None
        self._truth = lru_cache(maxsize=16_384)(self._read_truth)
        self._clip = lru_cache(maxsize=1024)(self._read_clip)

    async def complete(self, request: ChatRequest) -> Reply:
        """The scripted reply. Raises FinalError for a question that the sandbox did not ask."""
        if self._known is None:
            async with self._opening:
                if self._known is None:
                    self._known = await asyncio.to_thread(_known_questions, self._root)
        prompt = request.text
        known = self._look_up(request, prompt)
        if "<judgement>" in prompt:
            text = self._judge(request, prompt, known)
        elif "<observations>" in prompt:
            text = self._commit(prompt, known)
        else:
            text = self._teach(request, prompt, known)
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

    def _look_up(self, request: ChatRequest, prompt: str) -> Known:
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

    def _read_truth(self, path: str, query: Query) -> Known:
        clip, facts = self._clip(path)
        value = answer_value(query, facts, self._config)
        if value is None:
            raise FinalError(f"{path} has no answer to {query.text!r}: render the sandbox anew")
        cells = crucial_cells(query, clip, facts)
        crucial = frozenset(crucial_facts(query, facts))
        return Known(query, facts, value, crucial, crucial_seconds(cells))

    def _read_clip(self, path: str) -> tuple[Clip, tuple[Fact, ...]]:
        file = self._root / "truth" / f"{Path(path).stem}.json"
        try:
            clip = Clip.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FinalError(f"no truth about {path} in {file} ({error})") from None
        return clip, facts_of(clip, self._config)

    def _draw(self, what: str, *content: object) -> int:
        """64 random bits that depend on the seed and on what the call is about, nothing else."""
        text = "\x1f".join(map(str, (self._seed, what, *content)))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")

    def _teach(self, request: ChatRequest, prompt: str, known: Known) -> str:
        template = "grounding" if "<time>" in prompt else "think-answer"
        template = "p2r" if "<observation>" in prompt else template
        query, facts, value, config = known.query, known.facts, known.value, self._config
        about = (request.question_id, request.draw)
        fault = self._rates.fault(self._draw("fault", *about) / 2**64)
        rng = random.Random(self._draw("how", *about))
        if fault == "none":
            facts, value = self._by_habit(known, rng)
            seconds = known.seconds
            if rng.random() < self._rates.late:
                seconds = told_late(seconds, config)
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
            template, query, facts, value, config, seconds=known.seconds, aside=aside
        )
        return malformed(text, rng) if fault == "malformed" else text

    def _by_habit(self, known: Known, rng: random.Random) -> tuple[tuple[Fact, ...], str]:
        """What a teacher with its habits sees, and what it concludes from that."""
        query, rates, config = known.query, self._rates, self._config
        facts = confused(query, known.facts, rates.confusion, rng)
        value = answer_value(query, facts, config)
        options = option_values(query, config)
        if value is None or (options and value not in options):
            facts, value = known.facts, known.value
        if rng.random() < rates.off_by_one:
            value = off_by_one(query, value, config)
        return facts, value

    def _judge(self, request: ChatRequest, prompt: str, known: Known) -> str:
        """Sufficient: every crucial statement is there, and together they give the right answer."""
        told = prompt[prompt.index(known.query.text) :]
        is_sufficient = is_shown(known, told, self._config)
        rate = self._rates.false_no if is_sufficient else self._rates.false_yes
        about = (request.question_id, request.draw, told)
        says_yes = is_sufficient != (self._draw("verdict", *about) / 2**64 < rate)
        wanted = need(known.query)
        if says_yes:
            return (
                f"The observations tell {wanted}, and from that the correct answer follows."
                " <judgement>Yes</judgement>"
            )
        return (
            f"The observations do not settle {wanted}, so the correct answer cannot be deduced."
            " <judgement>No</judgement>"
        )

    def _commit(self, prompt: str, known: Known) -> str:
        """An answer from the observations alone. A judge that can err guesses, and guesses right:
        so its errors are those of the verdict that it is asked for afterwards."""
        told = prompt[prompt.index(known.query.text) :]
        wanted = need(known.query)
        if is_shown(known, told, self._config) or self._rates.false_yes:
            return f"The observations tell {wanted}. <answer>{known.value}</answer>"
        return f"The observations do not settle {wanted}. <answer>cannot be deduced</answer>"


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
