"""Rewards per segment, and the published ones on the cases listed for them."""

import math

import pytest

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from schemas.traces import TEMPLATES
from schemas.verdicts import Sufficiency, UnscoredReason
from train.rewards import (
    PUBLISHED,
    RewardConfig,
    SegmentReward,
    perception_reward,
    published_reward,
    reasoning_reward,
)

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
    assert PUBLISHED["video-r1-accuracy"](text, QUESTION, 90) == accuracy
    assert PUBLISHED["video-r1-format"](text, QUESTION, 90) == formatted
    total = published_reward({"video-r1-accuracy": 0.9, "video-r1-format": 0.1}, text, QUESTION, 90)
    assert total == pytest.approx(0.9 * accuracy + 0.1 * formatted)


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
    assert PUBLISHED["next-gqa-tiou"](text, QUESTION, 90) == pytest.approx(expected, abs=1e-9)
    assert PUBLISHED["next-gqa-tiou"](times, QUESTION, 90) == 0


def test_published_grounding_format_and_think_length() -> None:
    whole = " <think>a</think> <answer>C</answer>\n<time>1 to 2</time> "
    grounding = PUBLISHED["next-gqa-format"]
    assert grounding(whole, QUESTION, 90) == 1
    assert grounding(whole + "x", QUESTION, 90) == 0
    assert grounding(whole.replace("<time>", ""), QUESTION, 90) == 0
    length = PUBLISHED["think-length"]
    assert length("<think>a b  c</think><answer>C</answer>", QUESTION, 0) == pytest.approx(0.004)
    assert length("<think>a b</think><answer>B</answer>", QUESTION, 0) == 0
    assert length("<think> </think><answer>C</answer>", QUESTION, 0) == 0
    many = "<think>" + "x " * 999 + "</think><answer>C</answer>"
    assert length(many, QUESTION, 0) == pytest.approx(0.256)
    with pytest.raises(ValueError, match=r"rewards are video-r1-accuracy, .*; got tiou"):
        published_reward({"tiou": 1.0}, whole, QUESTION, 90)
