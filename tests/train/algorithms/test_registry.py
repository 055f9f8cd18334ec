import subprocess
import sys
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from cli.config import Config
from train.algorithms.registry import (
    ALGORITHMS,
    TOKEN_WEIGHTINGS,
    Advantage,
    parse_algo,
    register_advantage,
    register_algorithm,
    register_token_weighting,
)
from train.algorithms.token_weighting import TokenWeighting

# the table of the documentation: advantages, scale, loss_type, beta, epsilon, epsilon_high
TABLE = {
    "grpo": ("group", True, "grpo", 0.04, 0.2, 0.2),
    "dapo": ("group", True, "dapo", 0.0, 0.2, 0.28),
    "dr-grpo": ("group", False, "dr_grpo", 0.0, 0.2, 0.2),
    "pa-grpo": ("segment", True, "grpo", 0.04, 0.2, 0.2),
    "pa-dapo": ("segment", True, "dapo", 0.0, 0.2, 0.28),
}


@pytest.mark.parametrize("suffix", ["", "+appo"])
@pytest.mark.parametrize("base", TABLE)
def test_each_name_means_its_row_of_the_table(base: str, suffix: str) -> None:
    spec = parse_algo(base + suffix)
    assert spec.name == base + suffix
    assert (
        spec.advantages,
        spec.scale,
        spec.loss_type,
        spec.beta,
        spec.epsilon,
        spec.epsilon_high,
    ) == TABLE[base]
    assert spec.weighting == suffix.removeprefix("+")


def test_the_list_is_closed() -> None:
    assert set(ALGORITHMS) == {base + suffix for base in TABLE for suffix in ("", "+appo")}


@pytest.mark.parametrize("name", ["", "ppo", "GRPO", "appo+grpo", "grpo+appo+appo", "pa-dr-grpo"])
def test_any_other_name_is_refused_with_the_whole_list(name: str) -> None:
    with pytest.raises(ValueError, match="unknown algorithm") as caught:
        parse_algo(name)
    assert repr(name) in str(caught.value)
    assert all(choice in str(caught.value) for choice in ALGORITHMS)


def test_appo_alone_is_told_to_be_dapo_appo() -> None:
    with pytest.raises(ValueError, match=r"write dapo\+appo, for example \(choose from"):
        parse_algo("appo")


def test_a_misspelt_name_is_told_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"did you mean pa-grpo\+appo\?"):
        parse_algo("pa_grpo+appo")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"beta": "0.04"}, "'mine' has beta '0.04'; give a finite number"),
        ({"epsilon": float("nan")}, "'mine' has epsilon nan"),
        ({"epsilon_high": True}, "'mine' has epsilon_high True"),
        ({"loss_type": "ppo"}, "'mine' has the loss 'ppo'; choose from grpo, dapo, dr_grpo"),
        ({"advantages": "ghost"}, "has advantages 'ghost', which are not registered"),
        ({"weighting": "ghost"}, "has the token weighting 'ghost', which is not registered"),
        ({"name": "a b"}, "an algorithm cannot be called 'a b'"),
    ],
)
def test_an_algorithm_that_cannot_be_registered(changed: dict[str, Any], sentence: str) -> None:
    spec = replace(ALGORITHMS["grpo"], **{"name": "mine", **changed})
    with pytest.raises(ValueError, match=sentence):
        register_algorithm(spec)
    assert "mine" not in ALGORITHMS
    with pytest.raises(ValueError, match="is 3; give a function, or 'module:function'"):
        register_advantage(Advantage("mine", 3))  # type: ignore[arg-type]


def test_a_token_weighting_that_cannot_be_registered() -> None:
    class Mine(TokenWeighting):
        name = "mine"
        options = Config
        metric_kinds: ClassVar[Any] = {"mine/weight": "median"}

    with pytest.raises(ValueError, match="is combined by 'median'; choose from mean, std, sum"):
        register_token_weighting(Mine)
    Mine.name = "appo"
    with pytest.raises(ValueError, match="there is a token weighting called 'appo' already"):
        register_token_weighting(Mine)
    assert list(TOKEN_WEIGHTINGS) == ["appo"]


def test_names_are_parsed_without_torch() -> None:
    code = "import sys, train.algorithms.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
