"""The scripted teacher and judge: faultless by default, wrong at the given rates, only for the
sandbox.
"""

import asyncio
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from judges.answer_leaks import find_answer_leak
from judges.backends.base import (
    Backend,
    BackendUnavailableError,
    ChatRequest,
    FinalError,
    StopReason,
    TextPart,
)
from judges.backends.registry import BackendOptions, open_backend
from judges.scoring.answer_score import check_answer, extract_answer, score_answer
from judges.sufficiency import parse_judgement, sufficiency_request
from judges.text_reader import ReaderSettings, reader_requests
from sandbox.oracle import OracleBackend
from sandbox.world.clips import FULL, Clip
from sandbox.world.facts import facts_of, read_facts, say_all
from sandbox.world.questions import crucial_facts, parse_query
from schemas.annotations.reader import read_questions
from schemas.prompting import task_prompt
from schemas.questions import VideoQuestion
from schemas.traces import TEMPLATES, TraceError, parse_trace

pytestmark = pytest.mark.heavy

DEMO_TEACHER = "oracle:7,wrong=0.15,insufficient=0.1,malformed=0.05,leak=0.05"


@pytest.fixture(scope="module")
def questions(sandbox_world: Path) -> list[VideoQuestion]:
    rows = read_questions(sandbox_world / "questions.json")
    return [row for row in rows if isinstance(row, VideoQuestion)]


async def opened(spec: str, root: Path) -> Backend:
    return await open_backend(spec, BackendOptions(media_root=root))


def asked(question: VideoQuestion, template: str = "p2r", draw: int = 0) -> ChatRequest:
    shown = {"duration_seconds": 8.0, "num_frames": 16} if template == "grounding" else {}
    prompt = task_prompt(question, template, **shown)  # type: ignore[arg-type]
    return ChatRequest(
        parts=(TextPart(prompt.text),),
        max_tokens=1024,
        draw=draw,
        step="generate",
        question_id=question.question_id,
    )


async def verdict(judge: Backend, question: VideoQuestion, observation: str, draw: int = 0) -> str:
    request, _ = sufficiency_request(question, observation, draw=draw)
    return parse_judgement((await judge.complete(request)).text).verdict


async def fate(teacher: Backend, judge: Backend, question: VideoQuestion, draw: int = 0) -> str:
    """What a build would make of one draw, step by step."""
    reply = await teacher.complete(asked(question, draw=draw))
    assert reply.stop is StopReason.END
    try:
        trace = parse_trace(reply.text, TEMPLATES["p2r"])
    except TraceError:
        return "malformed"
    if score_answer(question, trace.get("answer")) < 0.6:
        return "wrong"
    observation = trace.get("observation")
    if await verdict(judge, question, observation) != "yes":
        return "insufficient"
    return "leak" if find_answer_leak(question, observation) else "accepted"


@pytest.mark.parametrize("template", sorted(TEMPLATES))
async def test_a_faultless_teacher_writes_well_formed_right_traces(
    sandbox_world: Path, questions: list[VideoQuestion], template: str
) -> None:
    teacher = await opened("oracle:1", sandbox_world)
    for question in questions:
        reply = await teacher.complete(asked(question, template))
        trace = parse_trace(reply.text, TEMPLATES[template])
        assert score_answer(question, trace.get("answer")) == 1.0, question
        if template == "grounding" and question.time_clues:
            clues = ", ".join(f"{a:g} to {b:g}" for a, b in question.time_clues)
            assert trace.get("time") == clues


@pytest.mark.parametrize("fault", ["accepted", "wrong", "insufficient", "malformed", "leak"])
async def test_each_fault_is_caught_at_its_own_step(
    sandbox_world: Path, questions: list[VideoQuestion], fault: str
) -> None:
    spec = "oracle:3" if fault == "accepted" else f"oracle:3,{fault}=1"
    teacher, judge = await opened(spec, sandbox_world), await opened("oracle:4", sandbox_world)
    fates = Counter([await fate(teacher, judge, question) for question in questions])
    assert fates == {fault: len(questions)}


async def test_wrong_traces_err_in_what_they_saw_or_in_what_they_made_of_it(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    """About half each; a right observation is called sufficient although the answer is wrong."""
    teacher = await opened("oracle:3,wrong=1", sandbox_world)
    judge = await opened("oracle:4", sandbox_world)
    verdicts = Counter[str]()
    for question in questions:
        reply = await teacher.complete(asked(question))
        observation = parse_trace(reply.text, TEMPLATES["p2r"]).get("observation")
        verdicts[await verdict(judge, question, observation)] += 1
    assert verdicts["yes"] + verdicts["no"] == len(questions)
    assert 0.3 < verdicts["yes"] / len(questions) < 0.7


def within(count: int, rate: float, total: int) -> bool:
    """Within four standard deviations of a binomial's mean."""
    return abs(count - rate * total) <= 4 * math.sqrt(total * rate * (1 - rate))


async def test_faults_come_at_their_rates(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    teacher, judge = (
        await opened(DEMO_TEACHER, sandbox_world),
        await opened("oracle:4", sandbox_world),
    )
    fates = Counter([await fate(teacher, judge, q, draw) for q in questions for draw in range(4)])
    total = 4 * len(questions)
    rates = {"wrong": 0.15, "insufficient": 0.1, "malformed": 0.05, "leak": 0.05, "accepted": 0.65}
    assert all(within(fates[name], rate, total) for name, rate in rates.items()), fates


@pytest.mark.parametrize(("option", "truth"), [("false_yes", "no"), ("false_no", "yes")])
async def test_the_judge_errs_at_its_rate_and_on_one_side_only(
    sandbox_world: Path, questions: list[VideoQuestion], option: str, truth: str
) -> None:
    judge = await opened(f"oracle:5,{option}=0.2", sandbox_world)
    helpful = await opened("oracle:1", sandbox_world)
    flipped = Counter[str]()
    for question in questions:
        reply = await helpful.complete(asked(question))
        full = parse_trace(reply.text, TEMPLATES["p2r"]).get("observation")
        for draw in range(3):
            flipped["yes"] += await verdict(judge, question, full, draw) == "no"
            flipped["no"] += await verdict(judge, question, "Nothing to see.", draw) == "yes"
    assert within(flipped[truth], 0.2, 3 * len(questions))
    assert flipped["no" if truth == "yes" else "yes"] == 0


async def test_replies_do_not_depend_on_order_or_company(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    requests = [asked(question, draw=draw) for question in questions[:60] for draw in (0, 1)]
    one, two = await opened(DEMO_TEACHER, sandbox_world), await opened(DEMO_TEACHER, sandbox_world)
    forward = [(await one.complete(request)).text for request in requests]
    backward = await asyncio.gather(*(two.complete(request) for request in requests[::-1]))
    assert forward == [reply.text for reply in backward][::-1]


async def test_another_seed_and_another_draw_give_other_faults(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    def texts(spec: str, draw: int) -> Any:
        async def ask() -> list[str]:
            teacher = await opened(spec, sandbox_world)
            return [(await teacher.complete(asked(q, draw=draw))).text for q in questions]

        return ask()

    first = await texts("oracle:7,wrong=0.5", 0)
    assert first != await texts("oracle:8,wrong=0.5", 0)
    assert first != await texts("oracle:7,wrong=0.5", 1)


def _truth_of(root: Path, question: VideoQuestion) -> tuple[str, ...]:
    name = Path(question.media[0].path).stem
    clip = Clip.from_json(json.loads((root / "truth" / f"{name}.json").read_text()))
    facts = facts_of(clip, FULL)
    query = parse_query(question.problem)
    assert query is not None
    crucial = crucial_facts(query, facts)
    return say_all(facts), say_all([f for f in facts if f not in crucial]), say_all(crucial)


async def test_the_judge_wants_every_crucial_statement_and_each_of_them_right(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    judge = await opened("oracle:4", sandbox_world)
    swap = {"red": "blue", "blue": "green", "green": "yellow", "yellow": "red"}
    seen = Counter[str]()
    for question in questions:
        everything, rest, crucial = _truth_of(sandbox_world, question)
        assert await verdict(judge, question, everything) == "yes", question
        assert await verdict(judge, question, f"Look. {crucial} That is all.") == "yes", question
        assert await verdict(judge, question, rest) == "no", question
        gold = f"The answer is {question.solution}."
        assert await verdict(judge, question, gold) == "no", question
        colour = next((f.colour for f in read_facts(crucial) if f.colour), "")
        if colour:
            distorted = everything.replace(f" {colour} ", f" {swap[colour]} ")
            assert await verdict(judge, question, distorted) == "no", question
        seen[question.problem_type.value] += 1
    assert len(seen) == 6


async def test_an_invented_thing_spoils_a_count(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    judge = await opened("oracle:4", sandbox_world)
    question = next(q for q in questions if q.data_source == "sandbox/sum")
    everything, _, _ = _truth_of(sandbox_world, question)
    names = {fact.name for fact in read_facts(everything)}
    extra = next(
        f"red {s}" for s in ("cross", "circle", "square", "triangle") if f"red {s}" not in names
    )
    invented = f"{everything} At t=7 a {extra} appears at the top left."
    assert await verdict(judge, question, everything) == "yes"
    assert await verdict(judge, question, invented) == "no"


async def test_what_the_teacher_sees_comes_from_the_truth_file(
    sandbox_world: Path, questions: list[VideoQuestion], tmp_path: Path
) -> None:
    root = tmp_path / "world"
    shutil.copytree(sandbox_world, root, ignore=shutil.ignore_patterns("*.mp4", "*.png"))
    question = next(q for q in questions if q.data_source == "sandbox/still_colour")
    path = root / "truth" / f"{Path(question.media[0].path).stem}.json"
    truth = json.loads(path.read_text())
    swap = {"red": "blue", "blue": "red", "green": "yellow", "yellow": "green"}
    for thing in truth["things"]:
        thing["colour"] = swap[thing["colour"]]
    path.write_text(json.dumps(truth))
    reply = await (await opened("oracle:1", root)).complete(asked(question))
    answer = parse_trace(reply.text, TEMPLATES["p2r"]).get("answer")
    assert answer == {"A": "B", "B": "A", "C": "D", "D": "C"}[question.solution]


async def test_questions_about_other_media_are_refused_for_good(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    backend = await opened("oracle:1", sandbox_world)
    foreign = questions[0].model_copy(update={"problem": "What does the woman do?"})
    with pytest.raises(FinalError, match=r"knows only the questions in .*questions\.json"):
        await backend.complete(asked(VideoQuestion(**foreign.model_dump())))
    nameless = ChatRequest(parts=asked(questions[0]).parts, max_tokens=9)
    with pytest.raises(FinalError, match="a request without question_id is none of them"):
        await backend.complete(nameless)
    other = ChatRequest(
        parts=asked(questions[1]).parts, max_tokens=9, question_id=questions[0].question_id
    )
    with pytest.raises(FinalError, match="the prompt does not ask"):
        await backend.complete(other)


@pytest.mark.parametrize(
    "spec",
    [
        *("oracle:seven", "oracle:7,wrong", "oracle:7,wrong=2", "oracle:7,wrong=-0.1"),
        *("oracle:7,rude=0.1", "oracle:7,wrong=nan", "oracle:7,wrong=0.1,wrong=0.2"),
        "oracle:7,wrong=0.6,leak=0.5",
    ],
)
async def test_a_spec_that_makes_no_sense_is_refused_with_what_to_write(
    sandbox_world: Path, spec: str
) -> None:
    with pytest.raises(
        BackendUnavailableError, match="write oracle:SEED with rates between 0 and 1"
    ):
        await opened(spec, sandbox_world)


@pytest.mark.parametrize("root", [None, Path("/nowhere")])
async def test_without_a_sandbox_under_the_media_root_it_does_not_open(root: Path | None) -> None:
    with pytest.raises(BackendUnavailableError, match=r"render one with python -m sandbox\.clips"):
        await open_backend("oracle:1", BackendOptions(media_root=root))


async def test_another_world_is_another_endpoint(sandbox_world: Path, tmp_path: Path) -> None:
    """So that replies about one world are never taken for replies about another."""
    from sandbox.clips import main

    main(["--out", str(tmp_path / "w"), "--clips", "2", "--stills", "1", "--num-questions", "5"])
    one, two = await opened("oracle:1", sandbox_world), await opened("oracle:1", tmp_path / "w")
    assert one.info.endpoint != two.info.endpoint
    assert one.info.endpoint.startswith("world-")


async def test_usage_counts_words_and_a_long_reply_is_cut(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    backend = await opened("oracle:1", sandbox_world)
    assert isinstance(backend, OracleBackend)
    request = asked(questions[0])
    reply = await backend.complete(request)
    assert reply.usage.input_tokens == len(request.text.split())
    assert reply.usage.output_tokens == len(reply.text.split())
    assert await backend.count_tokens(request) == reply.usage.input_tokens
    short = ChatRequest(parts=request.parts, max_tokens=5, question_id=request.question_id)
    cut = await backend.complete(short)
    assert (cut.stop, len(cut.text.split()), cut.usage.output_tokens) == (
        StopReason.MAX_TOKENS,
        5,
        5,
    )


async def answers(
    reader: Backend, question: VideoQuestion, observation: str | None
) -> list[bool | None]:
    """Whether each of four answers of the sandbox's text reader is correct."""
    settings = ReaderSettings(samples=4)
    found = []
    for request, asked_as, _ in reader_requests(question, observation, settings, "blind"):
        reply = await reader.complete(request)
        answer = extract_answer(reply.text, asked_as)
        found.append(answer is not None and check_answer(asked_as, answer).passed)
    return found


async def test_the_reader_answers_a_known_share_of_the_questions_blind(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    """Also with permuted options, in every sample; the others are guessed."""
    reader: Any = await opened("oracle:5,blind=0.3", sandbox_world)
    known = reader.blind_questions()
    assert len(known) == pytest.approx(0.3 * len(questions), abs=3)
    rates: dict[bool, list[bool | None]] = {True: [], False: []}
    for question in questions:
        rates[question.question_id in known] += await answers(reader, question, None)
    assert all(rates[True])
    assert sum(map(bool, rates[False])) < 0.5 * len(rates[False])
    other: Any = await opened("oracle:6,blind=0.3", sandbox_world)
    assert other.blind_questions() != known


async def test_a_share_that_texts_cannot_give_is_refused(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    """Clips share texts: whoever sees the text alone is wrong about some of them."""
    assert len({question.problem for question in questions}) < len(questions)
    reader = await opened("oracle:5,blind=1", sandbox_world)
    with pytest.raises(FinalError, match=r"blind=1 cannot be: \d+% of the questions"):
        await answers(reader, questions[0], None)


async def test_the_reader_answers_from_an_observation_that_says_enough(
    sandbox_world: Path, questions: list[VideoQuestion]
) -> None:
    reader = await opened("oracle:5", sandbox_world)
    teacher = await opened("oracle:1", sandbox_world)
    careless = await opened("oracle:1,insufficient=1", sandbox_world)
    guessed = 0
    for question in questions[:40]:
        reply = await teacher.complete(asked(question))
        observation = parse_trace(reply.text, TEMPLATES["p2r"]).get("observation")
        assert all(await answers(reader, question, observation)), question
        reply = await careless.complete(asked(question))
        observation = parse_trace(reply.text, TEMPLATES["p2r"]).get("observation")
        guessed += not all(await answers(reader, question, observation))
    assert guessed > 30
