"""`python -m train.plan`: a folder with a configuration and options in, a plan out."""

import json
from pathlib import Path

import pytest
from helpers.tiny_rl import render_questions

from train.plan import main
from train.rl import main as train_rl
from train.sft import main as train_sft

pytestmark = pytest.mark.heavy  # TRL's own options are loaded with TRL

SMALL = ["--num-generations", "4", "--max-completion-length", "256"]


@pytest.fixture
def folder(repository: Path) -> str:
    """Holds config.json alone."""
    return str(repository / "tests" / "reference" / "configurations" / "qwen2.5-vl-3b")


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_json_has_every_part_of_every_way(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    made = json.loads(planned(capsys, "--model", folder, "--nodes", "2", "--json", *SMALL))
    assert made["weights"]["all"] == 3_754_622_976
    assert (made["gpus"], made["group_size"], made["completion_tokens"]) == (16, 4, 256)
    assert len(made["ways"]) == 8
    for way in made["ways"]:
        assert way["peak_learning"] > way["parts"]["weights"] > 0


def test_status_is_0_where_nothing_fits(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    words = ("--model", folder, "--gpu-memory-gb", "4", "--wrapping", "ddp")
    lines = planned(capsys, *words).splitlines()
    (fits,) = [line.split() for line in lines if line.split()[:1] == ["fits"]]
    assert fits == ["fits", "no", "no"]


def test_a_recipe_is_planned_as_it_is(
    capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path
) -> None:
    """Keys of both kinds in one file; flags win."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("algo: dapo\nlora-rank: 16\nnum-generations: 6\nmax-completion-length: 99\n")
    words = ("--model", folder, "--config", str(recipe), "--max-completion-length", "77", "--json")
    made = json.loads(planned(capsys, *words))
    assert (made["group_size"], made["completion_tokens"]) == (6, 77)
    assert {way["lora_rank"] for way in made["ways"]} == {0, 16}
    assert all(way["parts"]["reference"] == 0 for way in made["ways"])  # dapo has no KL term


def test_parts_of_a_group_are_planned(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    """As --completions-per-pass asks for them."""
    words = ("--model", folder, *SMALL, "--completions-per-pass", "3")
    assert "+ 2 x 256) tokens at a time" in planned(capsys, *words)
    made = json.loads(planned(capsys, *words, "--json"))
    assert (made["group_size"], made["batch_size"], made["completions_per_pass"]) == (4, 4, 3)


def test_gpus_that_draw_do_not_learn(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    text = planned(capsys, "--model", folder, "--rollout-gpus", "2")
    assert "6 GPUs of 80 GB learn, 2 beside them draw" in text


def test_fine_tuning_is_planned_by_its_own_options(
    capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    words = ("--sft", "--model", folder, "--max-length", "4096", "--json")
    made = json.loads(planned(capsys, *words, "--per-device-train-batch-size", "2"))
    assert (made["row_tokens"], made["batch_size"]) == (2 * 4096, 2)
    assert made["weights"]["trained"] == made["weights"]["all"]  # the tower trains


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpus", "0"], "--gpus"),
        (["--rollout-gpus", "8"], "leaves none of 8 GPUs to learn"),
        (["--wrapping", "zero"], "expected one of ddp, zero2, zero3, fsdp2"),
        (["--num-generation", "4"], "did you mean --num-generations?"),
        (["--model", "/nowhere/at/all"], "there is no such folder"),
        (["--gpu-memory-gb", "inf"], "expected a finite number"),
        (["--frames", "fps:0"], "'fps:0' is no frame policy"),
        (["--lora-rank", "8", "--lora-targets", "qproj"], "has such a name; its family's are q_pr"),
        (["--num-generations", "1"], "a group needs at least 2"),
        (["--per-device-train-batch-size", "12"], "must be a multiple of --num-generations 8"),
        (["--gradient-accumulation-steps", "0"], "give a number of 1 or above"),
        (["--max-completion-length", "0"], "give a number of 1 or above"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(
    capsys: pytest.CaptureFixture[str], folder: str, words: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*([] if "--model" in words else ["--model", folder]), *words])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_questions(tmp_path_factory.mktemp("world"))


def test_a_dry_run_of_rl_is_its_plan_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    world: Path,
    tmp_path: Path,
) -> None:
    """Four processes, as their launcher sets it; the folder of the model holds no weights."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    out = tmp_path / "out"
    words = ["--algo", "grpo", "--model", folder, "--output-dir", str(out), "--lora-rank", "8"]
    words += ["--questions", str(world / "questions.json"), "--media-root", str(world)]
    words += [*SMALL, "--length-weight", "0", "--per-device-train-batch-size", "4"]
    assert train_rl([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown == planned(capsys, "--gpus", "4", *words)
    assert "4 GPUs of 80 GB learn" in shown
    assert not out.exists()


def test_a_dry_run_of_fine_tuning_is_its_plan(
    capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path
) -> None:
    words = ["--model", folder, "--dataset", str(tmp_path), "--media-root", str(tmp_path)]
    words += ["--output-dir", str(tmp_path / "out"), "--max-length", "2048"]
    assert train_sft([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown == planned(capsys, "--sft", "--gpus", "1", *words)
    assert "1 x 2,048 tokens at a time" in shown
    assert not (tmp_path / "out").exists()
