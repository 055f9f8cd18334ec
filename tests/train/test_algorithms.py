import subprocess
import sys

import pytest

from train.algorithms import ALGORITHMS, parse_algo

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
    assert spec.uses_appo == (suffix == "+appo")


def test_the_list_is_closed() -> None:
    assert set(ALGORITHMS) == {base + suffix for base in TABLE for suffix in ("", "+appo")}


@pytest.mark.parametrize("name", ["", "ppo", "GRPO", "appo+grpo", "grpo+appo+appo", "pa-dr-grpo"])
def test_any_other_name_is_refused_with_the_whole_list(name: str) -> None:
    with pytest.raises(ValueError, match="unknown algorithm") as caught:
        parse_algo(name)
    assert repr(name) in str(caught.value)
    assert all(choice in str(caught.value) for choice in ALGORITHMS)


def test_appo_alone_is_told_to_be_dapo_appo() -> None:
    with pytest.raises(ValueError, match=r"the paper's own is dapo\+appo \(choose from"):
        parse_algo("appo")


def test_a_misspelt_name_is_told_the_near_one() -> None:
    with pytest.raises(ValueError, match=r"did you mean pa-grpo\+appo\?"):
        parse_algo("pa_grpo+appo")


def test_names_are_parsed_without_torch() -> None:
    code = "import sys, train.algorithms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
