"""What a source makes of streams: groups that grow in pieces, and streams that it must not take."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.rollout_wire import Wire, rollout_wire
from helpers.training_world import question, tiny_model_folder, write_still

from media.sampling import FrameSpec
from schemas.traces import TEMPLATES
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.modeling.loading import load_processor
from train.rollouts.streaming import Drawn, RolloutServerError
from train.rollouts.token_sampling import Sampling
from train.rollouts.vllm.client import VllmClient
from train.rollouts.vllm.source import VllmRollouts

END, ASKED = 2, question("still.png")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoInputs]:
    root: Path = tmp_path_factory.mktemp("stills")
    write_still(root / "still.png")
    with FrameLoader(root, spec=FrameSpec("uniform:8", 6272), cache_dir=None) as loader:
        yield VideoInputs(load_processor(tiny_model_folder("qwen2.5-vl")), loader, TEMPLATES["p2r"])


@pytest.fixture
def drawn(inputs: VideoInputs) -> Iterator[tuple[Wire, Callable[..., Drawn], list[int]]]:
    """A scripted server, two completions of at most three tokens from it, and the prompt's ids."""
    prompt = inputs.prompt(ASKED)
    with rollout_wire() as wire:
        engine = VllmRollouts(VllmClient(wire.url), inputs)

        def draw(reader: Any = None) -> Drawn:
            return engine.start(
                [ASKED],
                [prompt],
                group_size=2,
                sampling=Sampling(3),
                end_ids=[END],
                seeds=[0],
                reader=reader,
            ).wait()

        yield wire, draw, prompt["input_ids"][0].tolist()
        engine.close()


def choice(number: int, tokens: Sequence[int], *, logprobs: int | None = None) -> dict[str, Any]:
    """A piece of a completion; the log-prob of token t is -t."""
    given = tokens if logprobs is None else tokens[:logprobs]
    content = [{"token": f"token_id:{t}", "logprob": -float(t)} for t in given]
    ended = "stop" if tokens[-1] == END else None
    return {
        "index": number,
        "token_ids": [*tokens],
        "logprobs": {"content": content},
        "finish_reason": ended,
    }


class Rows:
    def __init__(self) -> None:
        self.read_so_far: list[tuple[int, list[int]]] = []

    def read(self, row: int, tokens: Sequence[int]) -> None:
        self.read_so_far.append((row, [*tokens]))


def test_pieces_become_completions_and_are_read_as_they_come(drawn: Any) -> None:
    wire, draw, ids = drawn
    wire.streams(
        {"prompt_token_ids": ids, "choices": []},
        {"choices": [choice(1, [7])]},
        {"choices": [choice(0, [5, 6]), choice(1, [END])]},
        {"choices": [choice(0, [9])]},
    )
    rows = Rows()
    found = draw(rows)
    assert [each.tolist() for each in found.tokens[0]] == [[5, 6, 9], [7, END]]
    assert found.logprobs is not None
    assert [each.tolist() for each in found.logprobs[0]] == [[-5, -6, -9], [-7, -END]]
    assert rows.read_so_far == [(1, [7]), (0, [5, 6]), (1, [END]), (0, [9])]


def test_another_prompt_is_refused(drawn: Any) -> None:
    wire, draw, ids = drawn
    whole = {"choices": [choice(0, [END]), choice(1, [END])]}
    wire.streams({"prompt_token_ids": [*ids[:3], 99, *ids[4:]]} | whole)
    with pytest.raises(RolloutServerError, match=r"question .*: the server makes another .* 3; se"):
        draw()
    wire.streams(whole)
    with pytest.raises(RolloutServerError, match="no token ids of the prompt came back"):
        draw()


@pytest.mark.parametrize(
    "piece", [choice(1, [7]), choice(1, [7, END], logprobs=1), choice(0, [5, END])]
)
def test_completions_that_are_not_whole_are_refused(drawn: Any, piece: dict[str, Any]) -> None:
    wire, draw, ids = drawn
    wire.streams({"prompt_token_ids": ids, "choices": [choice(0, [END]), piece]})
    with pytest.raises(RolloutServerError, match=r"completion \d ended with"):
        draw()


def test_an_event_that_is_none_of_vllms_is_refused(drawn: Any) -> None:
    wire, draw, ids = drawn
    wire.streams({"prompt_token_ids": ids, "choices": [{"index": 9, "token_ids": [1]}]})
    with pytest.raises(RolloutServerError, match="none of vLLM"):
        draw()
