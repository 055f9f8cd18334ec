"""The words of `--reward`: what they mean, and the sentence for what they cannot mean."""

import math
from pathlib import Path

import pytest

from cli.config import UsageError
from schemas.traces import TEMPLATES
from train.rewards.plan import RewardPlan, plan_of, read_rewards
from train.rewards.registry import REWARDS, Reward, register_reward, reward
from train.rollouts.types import SegmentReward

P2R, GROUNDING = TEMPLATES["p2r"], TEMPLATES["grounding"]


def read(*words: str, template: str = "p2r", integer_seconds: bool = False) -> RewardPlan:
    return read_rewards(words, TEMPLATES[template], integer_seconds=integer_seconds)


def named(plan: RewardPlan) -> list[tuple[str, str, float]]:
    return [(each.label, each.segment, each.weight) for each in plan.named]


def test_without_a_word_each_segment_has_its_default() -> None:
    assert read() == read("default") == RewardPlan(frozenset({"perception", "reasoning"}), ())
    assert read("perception:default", "accuracy=2").default == {"perception"}
    assert named(read("perception:default", "accuracy=2")) == [("accuracy", "reasoning", 2.0)]
    assert read("accuracy").default == frozenset()
    assert not read("accuracy").rewards("perception")


def test_a_segment_and_a_weight_are_given_or_reasoning_and_one() -> None:
    plan = read("accuracy", "perception:sufficient=0.5", "reasoning:length=-1e-1", "format=0")
    assert named(plan) == [
        ("accuracy", "reasoning", 1.0),
        ("sufficient", "perception", 0.5),
        ("length", "reasoning", -0.1),
        ("format", "reasoning", 0.0),
    ]
    assert plan.needing("verdict") == ["sufficient"]
    assert read("perception:length").needing("verdict") == ["length"]
    assert read("length").needing("verdict") == []


def test_a_reward_of_both_segments_has_two_names() -> None:
    assert read("format", "perception:format=2").weights == {"format": 1, "perception:format": 2}


def test_grounding_is_rewarded_as_appo_does_it() -> None:
    expected = {"next-gqa-accuracy": 1.0, "next-gqa-format": 0.1}
    assert read(template="grounding").weights == expected | {"time-iou": 1.0}
    whole = read("default", template="grounding", integer_seconds=True)
    assert whole.weights == expected | {"next-gqa-tiou": 1.0}
    assert read("accuracy", template="grounding").weights == {"accuracy": 1.0}


def test_a_function_of_a_file_needs_no_decorator(tmp_path: Path) -> None:
    file = tmp_path / "a=b.py"
    file.write_text("def brevity(completion, **_):\n    return 0.5\n\n\nlimit = 3\n")
    (entry,) = read(f"perception:{file}:brevity=2").named
    assert (entry.label, entry.segment, entry.weight) == ("brevity", "perception", 2.0)
    assert entry.reward.function(completion="") == 0.5
    assert "brevity" not in REWARDS
    (tmp_path / "other.py").write_text("def brevity(completion, **_):\n    return 1\n")
    for word, sentence in (
        (f"{file}:longevity", "holds no function 'longevity'"),
        (f"{file}:limit", "holds no function 'limit'"),
        (f"{tmp_path}/gone.py:f", r"--reward .*gone\.py cannot be imported \(no such file: /"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read(word)
    with pytest.raises(UsageError, match="gives brevity twice"):
        read(f"{file}:brevity", f"perception:{tmp_path / 'other.py'}:brevity")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("acuracy", r"no reward is called 'acuracy'; did you mean accuracy\?"),
        ("quite-else", r"write FILE\.py:FUNCTION for one of your own\. There are"),
        ("percept:accuracy", "segments are perception and reasoning"),
        ("accuracy=much", "the weight 'much' is no finite number"),
        ("accuracy=", "the weight '' is no finite number"),
        ("accuracy=nan", "the weight 'nan' is no finite number"),
        ("default=2", r"have weights of their own .*; write default"),
        ("perception:default=2", "write perception:default"),
    ],
)
def test_a_word_that_cannot_be_read(word: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read(word)


def test_one_reward_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="gives accuracy twice"):
        read("accuracy", "accuracy=2")
    with pytest.raises(UsageError, match="gives next-gqa-accuracy twice"):
        read("default", "next-gqa-accuracy", template="grounding")


def test_a_segments_reward_is_the_weighted_sum() -> None:
    plan = plan_of({"video-r1-accuracy": 0.9, "video-r1-format": 0.1, "time-iou": 2.0})
    values = {"video-r1-accuracy": 1.0, "video-r1-format": 0.0, "time-iou": 0.25}
    found = plan.segment_reward("reasoning", values, None, lambda: math.nan)
    assert found == SegmentReward(1.0, 0.0, 0.0, 0.9 + 0.0 + 0.5)
    missing = values | {"time-iou": math.nan}
    found = plan.segment_reward("reasoning", missing, None, lambda: math.nan)
    assert math.isnan(found.total), "a missing part makes the sum missing, never smaller"
    beside = plan_of({"time-iou": 2.0})
    base = SegmentReward(1.0, 1.0, 0.2, 2.2)
    found = beside.segment_reward("reasoning", values, base, lambda: math.nan)
    assert found == SegmentReward(1.0, 1.0, 0.2, 2.2 + 0.5)
    assert beside.segment_reward("reasoning", values, None, lambda: 0.75).accuracy == 0.75
    assert plan.segment_reward("perception", {}, base, lambda: math.nan) is base


def test_what_cannot_be_registered() -> None:
    def mine(completion: str, **_: object) -> float:
        return 0.0

    for name, sentence in (
        ("accuracy", "a reward called 'accuracy' already"),
        ("default", "a reward called 'default' already"),
        ("a=b", "no equals sign"),
        ("a:b", "no colon"),
        ("reasoning/total", "no slash"),
        ("", "cannot be called ''"),
    ):
        with pytest.raises(ValueError, match=sentence):
            register_reward(Reward(name, mine))
    with pytest.raises(ValueError, match="needs ghosts; expected needs are verdict"):
        reward("mine", needs={"ghosts"})(mine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"write needs=\{'verdict'\}"):
        reward("mine", needs="verdict")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has the term 'speed'; expected one of accuracy, format"):
        reward("mine", term="speed")(mine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'write @reward\("NAME"\)'):
        reward(mine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has a parameter 'completions', which no reward is given"):
        Reward("mine", lambda completions, **_: 0.0)
    assert "mine" not in REWARDS


def test_a_notebooks_cell_may_be_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.rewards.registry.REWARDS", dict(REWARDS))
    from train.rewards import registry

    def named(value: float) -> None:
        @reward("from-a-cell")
        def brief(completion: str, **_: object) -> float:
            return value

    named(1.0)
    named(2.0)
    assert registry.REWARDS["from-a-cell"].function(completion="") == 2.0
    with pytest.raises(ValueError, match="already"):
        register_reward(Reward("from-a-cell", lambda **_: 3.0))
