"""The sandbox's scripted teacher, judge and reader: `oracle:SEED[,wrong=p][,insufficient=p]...`.

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
    reader    blind         this share of the questions is answered correctly from the text alone
                            (`blind_questions` lists them); the others are guessed
              false_yes     it answers correctly although the observation is insufficient
              false_no      it guesses although the observation is sufficient
"""

import asyncio
import random
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

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
from judges.scoring.choices import read_choices
from sandbox.teacher.faults import (
    ErrorRates,
    confused,
    delayed,
    guessed_value,
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
    ground_truth,
    is_sufficient,
    option_values,
    parse_query,
    solution_of,
)
from sandbox.world.rendered import RenderedWorld
from schemas.annotations.reader import read_questions
from schemas.questions import VideoQuestion

_READING = threading.Lock()
_READER_PROMPT = "The visual content itself is not shown to you"


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
    """Teacher, judge or reader, as the prompt has it. Knows the questions under its media root."""

    def __init__(self, root: Path, *, seed: int, rates: ErrorRates, rest: str, spec: str) -> None:
        self._world = RenderedWorld(root)
        self.info = BackendInfo(spec=spec, provider="oracle", model=rest, endpoint=self._world.id)
        self._root, self._seed, self._rates = root, seed, rates
        self._config = self._world.config
        self._opening = asyncio.Lock()
        self._known: dict[str, _Known] | None = None
        self._blind: Mapping[str, str] | None = None
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
        elif _READER_PROMPT in prompt:
            text = self._read(request, prompt, truth)
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
        path, query, _ = entry
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
        truth = ground_truth(query, clip, facts, self._config)
        if truth is None:
            raise FinalError(f"{path} has no answer to {query.text!r}: render the sandbox anew")
        return truth

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

    def blind_questions(self) -> frozenset[str]:
        """The questions that the reader answers correctly without their video, in every sample."""
        answers = self._blind_answers()
        return frozenset(
            question_id
            for question_id, known in _known_questions(self._root).items()
            if answers.get(known.query.text) == known.value
        )

    def _blind_answers(self) -> Mapping[str, str]:
        """What the reader believes to know, by the question's text.

        Clips share texts, and without a clip one text has one answer: the most frequent one of the
        world. Texts are taken in a random order, as long as what they answer correctly stays within
        the rate. Raises FinalError for a rate that no text-only reader can reach here.
        """
        if self._blind is None:
            self._blind = self._drawn_answers()
        return self._blind

    def _drawn_answers(self) -> dict[str, str]:
        golds: dict[str, Counter[str]] = defaultdict(Counter)
        known = _known_questions(self._root)
        for one in known.values():
            golds[one.query.text][one.value] += 1
        best = {
            text: min(seen.items(), key=lambda pair: (-pair[1], pair[0]))
            for text, seen in golds.items()
        }
        wanted, found = self._rates.blind * len(known), 0
        answers: dict[str, str] = {}
        for text in sorted(best, key=lambda text: self._random_bits("blind", text)):
            value, count = best[text]
            if found + count <= wanted:
                answers[text], found = value, found + count
        reachable = sum(count for _, count in best.values())
        if wanted > reachable:
            raise FinalError(
                f"blind={self._rates.blind:g} cannot be: {reachable / len(known):.0%} of the"
                f" questions in {self._root} can be answered from their texts, which clips share;"
                " give less, or render a world with fewer questions"
            )
        return answers

    def _read(self, request: ChatRequest, prompt: str, truth: GroundTruth) -> str:
        """An answer from the question alone, or from the observation that is given with it.

        It names an option by its text: in this prompt the letters may be others.
        """
        stated = prompt[prompt.index(truth.query.text) :]
        about = (stated, request.draw)
        if "<given_observation>" in prompt:
            supports = is_sufficient(truth, stated, self._config)
            rate = self._rates.false_no if supports else self._rates.false_yes
            if supports != (self._random_bits("read", *about) / 2**64 < rate):
                return f"<think>It is observed.</think><answer>{truth.value}</answer>"
        believed = self._blind_answers().get(self._asked_text(request))
        if believed is not None:
            return f"<think>It is always so.</think><answer>{believed}</answer>"
        rng = random.Random(self._random_bits("guess", *about))
        guess = guessed_value(truth.query, self._config, rng)
        return f"<think>Nothing says it, so I guess.</think><answer>{guess}</answer>"

    def _asked_text(self, request: ChatRequest) -> str:
        assert self._known is not None
        return self._known[request.question_id].query.text

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


class _Known(NamedTuple):
    """A question of the sandbox: its clip's path, what it asks, and its answer's value."""

    path: str
    query: Query
    value: str


def _known_questions(root: Path) -> dict[str, _Known]:
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
def _read_known(file: Path, mtime_ns: int, size: int) -> dict[str, _Known]:
    """Every question of the sandbox by its id."""
    known: dict[str, _Known] = {}
    for question in read_questions(file, format="video-r1"):
        query = parse_query(question.problem) if isinstance(question, VideoQuestion) else None
        if query is not None and isinstance(question, VideoQuestion):
            path, value = question.media[0].path, _value(question)
            known[question.question_id] = _Known(sys.intern(path), query, sys.intern(value))
    return known


def _value(question: VideoQuestion) -> str:
    """The gold answer's text: that of the option, where there are options."""
    for choice in read_choices(question.options) if question.options else ():
        if choice.letter == question.solution:
            return choice.text
    return question.solution
