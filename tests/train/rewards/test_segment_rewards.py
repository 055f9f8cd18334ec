"""Rewards per segment, and the published ones on the cases listed for them."""

import math

import pytest

from cli.config import UsageError
from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.samples import Sufficiency, UnscoredReason
from schemas.traces import TEMPLATES
from train.rewards.plan import plan_of
from train.rewards.registry import REWARDS
from train.rewards.segment_rewards import RewardConfig, perception_reward, reasoning_reward
from train.rollouts.types import SegmentReward

P2R = TEMPLATES["p2r"]
YES, NO = Sufficiency("yes"), Sufficiency("no")
UNSCORED = Sufficiency("unscored", UnscoredReason.NO_REPLY)
WHOLE = "<observation>a ball</observation> <think>so C</think><answer>C</answer>"
QUESTION = VideoQuestion(
    problem="Which?",
    options=("A. one", "B. two", "C. three", "D. four"),
    solution="C",
    media=(MediaRef(kind="video", path="a.mp4"),),
    problem_type=ProblemType.MULTIPLE_CHOICE,
    time_clues=((13.8, 29.8),),
)


def value(name: str, text: str) -> float:
    """A reward of the table, for a completion about a video of 90 s."""
    arguments = {"question": QUESTION, "completion": text, "duration_seconds": 90}
    return float(REWARDS[name].function(**arguments))


@pytest.mark.parametrize(
    ("verdict", "tokens", "expected"),
    [
        (YES, 127, SegmentReward(1, 1, 0, 2)),
        (YES, 128, SegmentReward(1, 1, 0.2, 2.2)),
        (YES, 320, SegmentReward(1, 1, 0.2, 2.2)),
        (YES, 321, SegmentReward(1, 1, 0, 2)),
        (NO, 200, SegmentReward(0, 1, 0, 1)),
    ],
)
def test_perception_earns_verdict_format_and_length(
    verdict: Sufficiency, tokens: int, expected: SegmentReward
) -> None:
    counts = {"observation": tokens, "think": 400}
    assert perception_reward(WHOLE, counts, verdict, P2R, RewardConfig()) == expected


def test_an_unscored_observation_is_missing_and_a_malformed_one_earns_nothing() -> None:
    missing = perception_reward(WHOLE, {"observation": 200}, UNSCORED, P2R, RewardConfig())
    assert math.isnan(missing.accuracy)
    assert math.isnan(missing.total)
    assert missing.format == 1
    cut = WHOLE.replace("</observation>", "")
    for verdict in (None, YES, UNSCORED):
        reward = perception_reward(cut, {}, verdict, P2R, RewardConfig())
        assert reward == SegmentReward(0, 0, 0, 0)
    with pytest.raises(ValueError, match="needs a verdict"):
        perception_reward(WHOLE, {}, None, P2R, RewardConfig())
    with pytest.raises(ValueError, match="no perception segment"):
        perception_reward(WHOLE, {}, YES, TEMPLATES["think-answer"], RewardConfig())


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        (WHOLE, 319, SegmentReward(1, 1, 0, 2)),
        (WHOLE, 320, SegmentReward(1, 1, 0.2, 2.2)),
        (WHOLE, 513, SegmentReward(1, 1, 0, 2)),
        (WHOLE.replace(">C<", ">B<"), 400, SegmentReward(0, 1, 0, 1)),
        (WHOLE.replace("</think>", ""), 400, SegmentReward(1, 0, 0, 1)),
        (WHOLE.replace("</observation>", ""), 400, SegmentReward(1, 1, 0.2, 2.2)),
        (WHOLE + "<answer>C</answer>", 400, SegmentReward(0, 0, 0, 0)),
        ("", 0, SegmentReward(0, 0, 0, 0)),
    ],
)
def test_reasoning_earns_answer_format_and_length(
    text: str, tokens: int, expected: SegmentReward
) -> None:
    """Tokens of think and answer count together; the observation's faults are not reasoning's."""
    counts = {"observation": 50, "think": max(tokens - 1, 0), "answer": min(tokens, 1)}
    assert reasoning_reward(QUESTION, text, counts, P2R, RewardConfig()) == expected


@pytest.mark.parametrize(
    ("text", "perception", "reasoning"),
    [
        ("\n " + WHOLE.replace("> <", ">\n\n<") + " \n", 1, 1),
        (f"First of all, {WHOLE}", 0, 1),
        (WHOLE.replace("> <", "> so I reason here <"), 1, 0),
        (WHOLE.replace("><answer", "> therefore <answer"), 1, 0),
        (f"{WHOLE} And because of that.", 1, 0),
        (f"Words {WHOLE} words", 0, 0),
        # a broken observation is perception's fault, and all of it
        (f"Words {WHOLE.replace('</observation>', '')}", 0, 1),
        (f"{WHOLE.replace('</observation>', '')} words", 0, 0),
    ],
)
def test_text_outside_of_the_segments_costs_the_format(
    text: str, perception: int, reasoning: int
) -> None:
    """Else reasoning moves to where no length is counted, and a preface earns as an observation."""
    counts = {"observation": 200, "think": 400, "answer": 1}
    has_observation = "</observation>" in text
    seen = perception_reward(text, counts, YES, P2R, RewardConfig())
    expected = (int(has_observation), perception, 0.2 * perception)
    assert (seen.accuracy, seen.format, seen.length) == expected
    thought = reasoning_reward(QUESTION, text, counts, P2R, RewardConfig())
    assert (thought.accuracy, thought.format, thought.length) == (1, reasoning, 0.2 * reasoning)
    for segment, format_ in (("perception", perception), ("reasoning", reasoning)):
        given = {"completion": text, "template": P2R, "segment": segment}
        assert REWARDS["format"].function(**given) == format_


@pytest.mark.parametrize("outside", ["Well, {}", "{} Done.", "{}"])
def test_a_template_without_perception_may_hold_nothing_outside_either(outside: str) -> None:
    text = outside.format("<think>so</think> <answer>C</answer>")
    template = TEMPLATES["think-answer"]
    given = {"completion": text, "template": template, "segment": "reasoning"}
    assert REWARDS["format"].function(**given) == (outside == "{}")


def test_weights_ranges_and_bonus_are_options() -> None:
    config = RewardConfig(0.9, 0.1, 2.0, 0.5, perception_tokens=(0, 1), reasoning_tokens=(2, 2))
    counts = {"observation": 1, "think": 1, "answer": 1}
    assert perception_reward(WHOLE, counts, YES, P2R, config).total == pytest.approx(2.0)
    assert reasoning_reward(QUESTION, WHOLE, counts, P2R, config).total == pytest.approx(2.0)
    with pytest.raises(ValueError, match="reasoning_tokens must be a range"):
        RewardConfig(reasoning_tokens=(5, 4))
    with pytest.raises(ValueError, match="length_bonus must be a finite number"):
        RewardConfig(length_bonus=math.nan)


@pytest.mark.parametrize(
    ("text", "accuracy", "formatted"),
    [
        ("<think>a</think><answer>C</answer>", 1, 1),
        ("<think>a</think>\n<answer> C\n</answer>", 1, 1),
        ("<think>a</think><answer>C</answer>\nextra", 1, 1),
        ("<think>a</think><answer>C</answer> extra", 1, 0),
        (" <think>a</think><answer>C</answer>", 1, 0),
        ("<think>a</think><answer>C</answer>\r\n", 1, 0),
        ("<think></think><answer>C</answer>", 1, 1),
        ("<think>a</think><answer>c</answer>", 0, 0),
        ("<think>a</think><answer>C. x</answer>", 0, 0),
        ("<think>a</think><answer>CC</answer>", 0, 0),
        ("<think>a</think><answer>(C)</answer>", 0, 0),
        ("<think><answer>C</answer></think><answer>C</answer>", 0, 1),
        ("<think>a</think> b </think><answer>C</answer>", 1, 1),
        ("<think>a</think>x<answer>C</answer>", 1, 0),
        ("<answer>C</answer>", 1, 0),
    ],
)
def test_published_accuracy_and_format(text: str, accuracy: int, formatted: int) -> None:
    assert value("video-r1-accuracy", text) == accuracy
    assert value("video-r1-format", text) == formatted
    weights = {"video-r1-accuracy": 0.9, "video-r1-format": 0.1}
    values = {name: value(name, text) for name in weights}
    found = plan_of(weights).segment_reward("reasoning", values, None, lambda: math.nan)
    assert (found.accuracy, found.format, found.length) == (accuracy, formatted, 0)
    assert found.total == pytest.approx(0.9 * accuracy + 0.1 * formatted)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("13.8 to 29.8", 0.9999999994),
        ("13 to 29", 0.9999999994),
        ("13.8 TO 29.8", 0.9999999994),
        ("14 to 30", 0.882352941),
        ("13.8 to 29.8, 40 to 45", 0.761904762),
        ("-5 to 20", 0.291666667),
        ("0 to 90", 0.177777778),
        ("0 to 999999999", 0.16),
        *((text, 0.0) for text in ("13.8-29.8", "13.8s to 29.8s", "13  to 29", "", "29 to 13")),
        *((text, 0.0) for text in ("8.4 to 8.9", "95 to 99", "100 to 200")),
    ],
)
def test_published_time_iou(times: str, expected: float) -> None:
    """Clue 13.8 to 29.8 of a video of 90 s, so 100 seconds exist: 16 of them in `0 to 10^9`."""
    text = f"<time>1 to 2</time> <time>\n{times}</time>"
    assert value("next-gqa-tiou", text) == pytest.approx(expected, abs=1e-9)
    assert value("next-gqa-tiou", times) == 0


def test_published_grounding_format_and_think_length() -> None:
    whole = " <think>a</think> <answer>C</answer>\n<time>1 to 2</time> "
    assert value("next-gqa-format", whole) == 1
    assert value("next-gqa-format", whole + "x") == 0
    assert value("next-gqa-format", whole.replace("<time>", "")) == 0
    short = "<think>a b  c</think><answer>C</answer>"
    assert value("think-length", short) == pytest.approx(0.004)
    assert value("think-length", "<think>a b</think><answer>B</answer>") == 0
    assert value("think-length", "<think> </think><answer>C</answer>") == 0
    many = "<think>" + "x " * 999 + "</think><answer>C</answer>"
    assert value("think-length", many) == pytest.approx(0.256)
    with pytest.raises(UsageError, match=r"There are accuracy, .*video-r1-format"):
        plan_of({"tiou": 1.0})
