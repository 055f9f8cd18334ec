"""The quote of a dry run, computed by hand."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from helpers.built_ledger import question
from helpers.scripted_calls import a_clip
from PIL import Image

from judges.backends.base import (
    BackendInfo,
    ChatRequest,
    ImagePart,
    Reply,
    RetryableError,
    TextPart,
)
from judges.backends.prices import ModelPrice, Rates
from judges.quotes import arithmetic_tokens, count_tokens
from media.sampling import FrameSpec
from media.store import FrameStore
from pipeline.estimate import (
    SAMPLE_SIZE,
    Assumptions,
    Estimate,
    SpreadSample,
    estimate,
    observed,
)
from pipeline.steps import StepSettings, generation_request
from schemas.questions import MediaRef

STILL = (MediaRef(kind="image", path="still.png"),)
GONE = (MediaRef(kind="image", path="gone.png"),)
ASSUMED = Assumptions(
    trace_tokens=200, judge_reply_tokens=50, share_verified=0.5, calls_per_question=2.0
)
TEACHER = ModelPrice(Rates(input=4.0, output=20.0, cache_read=0.4, cache_write=5.0))
JUDGE = ModelPrice(
    Rates(input=1.0, output=5.0, cache_read=0.1, cache_write=1.25), batch_factor=0.25
)


class Counter:
    """A backend that counts tokens: so many for each request, or an error."""

    info = BackendInfo("claude:m", "claude", "m", "http://here")

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens

    async def count_tokens(self, request: ChatRequest) -> int | None:
        if self._tokens == -1:
            raise RetryableError("529 overloaded")
        return self._tokens

    async def complete(self, request: ChatRequest) -> Reply:
        raise AssertionError("an estimate asks for no reply")

    def worst_case_tokens(self, request: ChatRequest) -> tuple[int, int]:
        raise AssertionError("an estimate reserves nothing")

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameStore]:
    root = tmp_path_factory.mktemp("media")
    Image.new("RGB", (90, 60)).save(root / "still.png")
    with FrameStore(root, spec=FrameSpec(), cache_dir=None, workers=1) as store:
        yield store


async def quote(
    frames: FrameStore,
    *,
    num_questions: int = 10,
    num_gone: int = 0,
    prices: tuple[ModelPrice | None, ModelPrice | None] = (TEACHER, JUDGE),
) -> Estimate:
    sample = SpreadSample()
    for row in range(num_questions):
        sample.add(question(row, media=GONE if row < num_gone else STILL))
    return await estimate(
        sample,
        frames=frames,
        settings=StepSettings("claude:teacher", "claude:judge"),
        backends={"generator": Counter(1000), "judge": Counter(300)},
        prices=dict(zip(("generator", "judge"), prices, strict=True)),
        assumptions=ASSUMED,
    )


async def test_calls_tokens_and_dollars_follow_by_hand(frames: FrameStore) -> None:
    """10 questions x 2 draws = 20 calls of 1000 in, 200 out: 20 * (4000 + 4000) / 1e6 = $0.16.
    Half of them are judged, 300 in, 50 out: 10 * (300 + 250) / 1e6 = $0.0055.
    """
    teacher, judge = (await quote(frames)).steps
    assert (teacher.step, teacher.backend) == ("generate", "claude:teacher")
    assert (teacher.calls, teacher.input_tokens, teacher.output_tokens) == (20, 20_000, 4_000)
    assert teacher.usd == pytest.approx(0.16)
    assert (judge.step, judge.backend) == ("filter", "claude:judge")
    assert (judge.calls, judge.input_tokens, judge.output_tokens) == (10, 3_000, 500)
    assert judge.usd == pytest.approx(0.0055)


async def test_batches_cost_each_models_share_of_the_price(frames: FrameStore) -> None:
    teacher, judge = (await quote(frames)).steps
    assert teacher.usd_batch == pytest.approx(0.08)
    assert judge.usd_batch == pytest.approx(0.0055 / 4)


async def test_questions_whose_files_cannot_be_read_cost_nothing(frames: FrameStore) -> None:
    quoted = await quote(frames, num_gone=5)
    assert (quoted.questions, quoted.sampled, quoted.unreadable_in_sample) == (10, 10, 5)
    assert [step.calls for step in quoted.steps] == [10, 5]
    assert quoted.steps[0].usd == pytest.approx(0.08)


async def test_a_sample_stands_for_all_questions_that_it_has_seen(frames: FrameStore) -> None:
    quoted = await quote(frames, num_questions=1000)
    assert (quoted.questions, quoted.sampled) == (1000, 63)
    assert quoted.steps[0].calls == 2000
    assert quoted.counted_by == "the server"


async def test_a_price_that_is_not_known_is_not_zero(frames: FrameStore) -> None:
    teacher, judge = (await quote(frames, prices=(TEACHER, None))).steps
    assert teacher.usd is not None
    assert (judge.usd, judge.usd_batch, judge.calls) == (None, None, 10)


async def test_no_question_left_costs_nothing(frames: FrameStore) -> None:
    quoted = await quote(frames, num_questions=0)
    assert [(step.calls, step.usd) for step in quoted.steps] == [(0, 0.0), (0, 0.0)]


@pytest.mark.parametrize("num_seen", [1, SAMPLE_SIZE, 2 * SAMPLE_SIZE, 1000, 12_345])
def test_a_spread_sample_lies_at_even_distances_over_the_whole_file(num_seen: int) -> None:
    sample = SpreadSample()
    for row in range(num_seen):
        sample.add(question(row))
    rows = [kept.row for kept in sample.questions]
    stride = rows[1] - rows[0] if len(rows) > 1 else 1
    assert rows == list(range(0, num_seen, stride))
    assert min(num_seen, SAMPLE_SIZE) <= len(rows) <= 2 * SAMPLE_SIZE
    assert sample.num_seen == num_seen


def test_arithmetic_counts_four_characters_and_750_pixels_a_token() -> None:
    # 9 characters and a newline between them: 10 / 4 -> 3; 160 * 90 / 750 = 19.2 -> 20 per frame
    frame = ImagePart("m/f/0", 160, 90, b"")
    request = ChatRequest((TextPart("abcd"), frame, frame, TextPart("efghi")), max_tokens=1)
    assert arithmetic_tokens(request) == 3 + 20 + 20


@pytest.mark.parametrize(
    ("backend", "tokens", "counted_by"),
    [
        (None, 43, "arithmetic"),
        (Counter(None), 43, "arithmetic"),
        (Counter(77), 77, "the server"),
        (Counter(-1), 43, "arithmetic (the server's count failed: 529 overloaded)"),
    ],
)
async def test_the_server_counts_where_it_can(
    backend: Counter | None, tokens: int, counted_by: str
) -> None:
    frame = ImagePart("m/f/0", 160, 90, b"")
    request = ChatRequest((TextPart("abcd"), frame, frame, TextPart("efghi")), max_tokens=1)
    assert await count_tokens(backend, request) == (tokens, counted_by)


def test_a_clip_costs_its_frames() -> None:
    settings = StepSettings("t", "j")
    few, _ = generation_request(question(0), [a_clip(times=(0.0,))], settings, attempt=0)
    many, _ = generation_request(question(0), [a_clip(times=(0.0, 1.0, 2.0))], settings, attempt=0)
    assert arithmetic_tokens(many) - arithmetic_tokens(few) >= 2 * 20


SEEN = {
    "questions": 20,
    "generated": 30,
    "verified": 28,
    "judged": 24,
    "trace_tokens": 150.0,
    "observation_words": 60.0,
    "judge_reply_tokens": 40.0,
    "asked_blind": 0,
    "rejected_blind": 0,
    "read": 0,
    "blind_reply_tokens": 0.0,
    "read_reply_tokens": 0.0,
}


def test_what_the_build_has_seen_replaces_what_was_assumed() -> None:
    assert observed(ASSUMED, SEEN) == Assumptions(
        trace_tokens=150.0,
        observation_tokens=60.0,
        judge_reply_tokens=40.0,
        share_verified=0.8,  # 24 of 30
        calls_per_question=1.5,  # 30 for 20
        source="seen in this build's first 20 questions",
    )


@pytest.mark.parametrize("few", [{"generated": 9}, {"judged": 9}])
def test_a_handful_of_calls_says_nothing(few: dict[str, int]) -> None:
    assert observed(ASSUMED, SEEN | few) == ASSUMED
    assert observed(replace(ASSUMED, source="x"), SEEN).source != "x"
