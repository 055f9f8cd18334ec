"""The tiny judge's table counts what it says it counts."""

from judges.backends.base import ChatRequest, TextPart
from sandbox.llama_judge import Judged, table
from sandbox.models.judge_examples import Examples
from sandbox.world.clips import PRESETS
from schemas.samples import Sufficiency, UnscoredReason

UNSCORED = Sufficiency("unscored", UnscoredReason.OFF_MENU)


def number(lines: list[str], name: str) -> float:
    (line,) = [line for line in lines if line.strip().startswith(name)]
    return float(line.strip().removeprefix(name).split()[0])


def test_an_unscored_verdict_agrees_with_nobody() -> None:
    examples = Examples(PRESETS["tiny"], clips=20, seed=3).draw(8)
    right = [Sufficiency("yes" if one.is_sufficient else "no") for one in examples]
    all_right = table([Judged(*pair) for pair in zip(examples, right, strict=True)])
    assert number(all_right, "this judge") == 1.0
    assert number(all_right, "always yes") == 0.5
    two_lost = [UNSCORED, UNSCORED, *right[2:]]
    lines = table([Judged(*pair) for pair in zip(examples, two_lost, strict=True)])
    assert number(lines, "this judge") == 0.75
    assert "(2 unscored)" in lines[0]


def test_held_out_examples_are_never_trained_on() -> None:
    world = PRESETS["tiny"]
    held_out = Examples(world, clips=20, seed=5).draw(40)
    prompts = frozenset(one.request.text for one in held_out)
    trained = Examples(world, clips=20, seed=5, without=prompts).draw(200)
    assert not prompts & {one.request.text for one in trained}
    assert all(isinstance(one.request, ChatRequest) for one in trained)
    assert all(isinstance(part, TextPart) for one in trained for part in one.request.parts)
