"""`python -m train.sft` as a user runs it: trains, is killed, resumes, runs in two processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.training_world import (
    FAMILIES,
    question,
    small_world,
    tiny_model_folder,
    write_clip,
)
from safetensors.torch import load_file

from cli.config import UsageError
from media.sampling import FrameSpec
from schemas.traces import TEMPLATES
from train import sft
from train.data.frame_loader import FrameLoader
from train.data.model_inputs import VideoInputs
from train.recipes import FOLDER

pytestmark = pytest.mark.heavy

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class World:
    """Clips, a dataset of 12 rows, and where runs go."""

    media: Path
    dataset: Path
    folder: Path

    def words(self, out: str, *extra: str, family: str = "qwen2.5-vl") -> list[str]:
        """The command's words after `python -m train.sft`: 6 steps of 4 rows, every one logged."""
        options = {
            "model": tiny_model_folder(family),
            "dataset": self.dataset,
            "media-root": self.media,
            "out": self.folder / out,
            "frame-cache": self.folder / "cache",
            "learning-rate": "1e-3",
            "batch-size": 4,
            "max-steps": 6,
            "save-steps": 2,
            "logging-steps": 1,
            "held-out-rows": 0,
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [*flags, *extra]

    def run(self, out: str, *extra: str, family: str = "qwen2.5-vl") -> int:
        """To the end, in this process; wrong usage raises UsageError."""
        return sft.main(self.words(out, *extra, family=family))

    def report(self, out: str) -> dict[str, Any]:
        """What the run said at its end."""
        report: dict[str, Any] = json.loads((self.folder / out / "report.json").read_text())
        return report

    def losses(self, out: str) -> list[float]:
        """The logged loss of each step."""
        return [loss for _, loss in self.report(out)["curves"]["loss"]]

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        """The saved model's."""
        loaded: dict[str, torch.Tensor] = load_file(self.folder / out / "model.safetensors")
        return loaded


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("sft")
    media, dataset = small_world(folder, num_rows=12)
    return World(media, dataset, folder)


@pytest.fixture(scope="module")
def whole(world: World) -> World:
    """A run that nothing disturbed, in `whole`."""
    assert world.run("whole") == 0
    return world


def test_a_run_learns_and_says_what_it_did(whole: World) -> None:
    report, losses = whole.report("whole"), whole.losses("whole")
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 1  # nats per token: wording that never changes is learned first
    assert report["dataset"]["rows_trained"] == 12
    assert report["dataset"]["id"].startswith("rows-")
    given = {"max_steps": 6, "save_steps": 2.0, "logging_steps": 1.0}
    assert report["run"]["config"]["trl"] == given
    assert report["training"]["rows_per_step"] == 4
    assert report["lengths"]["dropped"] == []
    assert report["run"]["versions"]["trl"]
    out = whole.folder / "whole"
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "report.md").read_text()
    assert report["run"]["run_id"] in text
    assert "Not measured: no questions were held out" in text
    assert list((out / "runs").rglob("events.out.tfevents.*"))  # TensorBoard


def test_the_same_command_again_does_nothing(
    whole: World, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole.folder / "whole" / "model.safetensors").stat().st_mtime_ns
    assert whole.run("whole") == 0
    assert "is finished" in capsys.readouterr().out
    assert (whole.folder / "whole" / "model.safetensors").stat().st_mtime_ns == before


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """To the bit."""
    return {*one} == {*other} and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.heavy
@pytest.mark.slow
def test_a_run_killed_at_a_checkpoint_and_resumed_has_the_same_weights(whole: World) -> None:
    """To the bit: CPU, float32, one thread. The kill is in the middle of the second epoch."""
    command = [sys.executable, "-m", "train.sft", *whole.words("killed")]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = whole.folder / "killed" / "checkpoint-4" / "trainer_state.json"
    deadline = time.monotonic() + 200
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert state.exists()
    assert not (whole.folder / "killed" / "report.json").exists()
    # What a kill in the middle of saving leaves is not gone on from.
    (whole.folder / "killed" / "checkpoint-6").mkdir(exist_ok=True)
    (whole.folder / "killed" / "checkpoint-6" / "trainer_state.json").unlink(missing_ok=True)
    assert whole.run("killed") == 0
    assert same_weights(whole.weights("whole"), whole.weights("killed"))
    assert whole.losses("killed") == whole.losses("whole")


def test_ctrl_c_saves_a_checkpoint_and_the_same_command_goes_on(
    whole: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.trainers.sft_trainer import VideoSFTTrainer

    log = VideoSFTTrainer.log

    def log_and_press(self: Any, logs: dict[str, float], *rest: Any) -> None:
        if self.state.global_step == 3:
            signal.raise_signal(signal.SIGINT)
        log(self, logs, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(VideoSFTTrainer, "log", log_and_press)
        assert whole.run("stopped") == 3
    # Pressed while step 3 was logged, after its end: one more step is finished and saved.
    assert (whole.folder / "stopped" / "checkpoint-4" / "trainer_state.json").is_file()
    assert not (whole.folder / "stopped" / "checkpoint-6").exists()
    assert whole.run("stopped") == 0
    assert same_weights(whole.weights("whole"), whole.weights("stopped"))


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--learning-rate", "2e-3"], r"--learning-rate was 0\.001, is now 0\.002"),
        (["--weight-decay", "0.1"], r"--weight-decay was not given, is now 0\.1"),
    ],
)
def test_a_changed_option_is_refused_by_name(whole: World, extra: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=rf"{sentence}.* another --output-dir"):
        whole.run("whole", *extra)


def test_a_folder_that_holds_something_else_is_left_alone(world: World) -> None:
    (world.folder / "others").mkdir()
    (world.folder / "others" / "model.safetensors").write_text("mine")
    with pytest.raises(UsageError, match=r"holds model.safetensors, but not the options.json"):
        world.run("others")


def test_a_dataset_with_a_missing_video_is_refused_before_training(
    world: World, tmp_path: Path
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for clip in sorted(world.media.iterdir())[1:]:
        (media / clip.name).hardlink_to(clip)
    with pytest.raises(UsageError, match=r"1 of the dataset's 12 files .*clip0\.mp4"):
        world.run("missing", "--media-root", str(media))
    assert not list((world.folder / "missing").glob("checkpoint-*"))


def test_a_text_only_model_is_refused(world: World, tmp_path: Path) -> None:
    from sandbox.tiny_model import save_tiny_model

    llama = save_tiny_model("llama", tmp_path / "llama")
    with pytest.raises(UsageError, match="is llama, which takes no video"):
        world.run("llama", "--model", str(llama))


def test_a_step_is_the_same_however_it_is_split(whole: World) -> None:
    """4 x 1 rows and 1 x 4: every trained token weighs alike, in long answers and short ones."""
    assert whole.run("wide", "--per-device-train-batch-size", "4") == 0
    # as for two processes: only the order of float32 sums differs
    assert whole.losses("wide") == pytest.approx(whole.losses("whole"), abs=2e-5)


@pytest.mark.heavy
@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(whole: World) -> None:
    launcher = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    launcher += " --mixed_precision no --dynamo_backend no --main_process_port 0 -m train.sft"
    words = [*launcher.split(), *whole.words("two", "--use-cpu")]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert whole.report("two")["training"]["processes"] == 2
    assert whole.report("two")["training"]["rows_per_step"] == 4
    # The same 4 rows a step, summed in another order (float32), over 6 steps: differences stay
    # near 1e-6; another row in a step would show in the second decimal.
    assert whole.losses("two") == pytest.approx(whole.losses("whole"), abs=2e-5)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2], ids=["all weights", "adapter"])
def test_two_processes_that_share_the_weights_end_as_one(
    whole: World, repository: Path, tmp_path: Path, rank: int
) -> None:
    """FSDP2, by the launch file of the recipes; the finished model is whole. SGD: Adam's first
    steps make whole steps of gradients that are nothing but rounding."""
    launch = yaml.safe_load((FOLDER / "accelerate" / "fsdp2_8gpu.yaml").read_text("utf-8"))
    launch |= {"use_cpu": True, "mixed_precision": "no", "num_processes": 2, "main_process_port": 0}
    (tmp_path / "cpu.yaml").write_text(yaml.safe_dump(launch))
    options = ["--optim", "sgd", "--learning-rate", "0.1", "--max-steps", "3"]
    options += ["--lora-rank", str(rank)]
    alone, shared = f"alone-{rank}", f"shared-{rank}"
    assert whole.run(alone, *options) == 0
    words = ["accelerate.commands.launch", "--config_file", str(tmp_path / "cpu.yaml")]
    words += [str(repository / "tests" / "helpers" / "sharded_command.py"), "sft"]
    words += whole.words(shared, *options, "--use-cpu", "--ddp-backend", "gloo")
    paths = os.pathsep.join([str(repository), str(repository / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=ENVIRONMENT | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert whole.losses(shared) == pytest.approx(whole.losses(alone), abs=2e-5)
    before = load_file(Path(tiny_model_folder("qwen2.5-vl")) / "model.safetensors")
    expected, found = whole.weights(alone), whole.weights(shared)
    assert max(float((value - before[key]).abs().max()) for key, value in expected.items()) > 1e-3
    for key, value in expected.items():
        assert float((value - found[key]).abs().max()) < 1e-6, key
    assert (whole.folder / shared / "adapter").is_dir() == (rank > 0)


_PLAIN = re.compile(
    r"^## Load a checkpoint with plain transformers\n.*?```python\n(.*?)```", re.M | re.S
)


def card_code(folder: Path, clip: Path) -> str:
    """The loading code on a saved model's card, about our clip, with a short answer."""
    card = (folder / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert isinstance(code, str)
    assert "import train" not in code
    assert "from train" not in code
    return re.sub(r"max_new_tokens=\d+", "max_new_tokens=4", code.replace("clip.mp4", str(clip)))


def test_every_saved_folder_has_our_card_and_none_of_trls(whole: World) -> None:
    out = whole.folder / "whole"
    for folder in (out, out / "checkpoint-4", out / "checkpoint-6"):
        card = (folder / "README.md").read_text("utf-8")
        assert "supervised fine-tuning" in card
        assert whole.report("whole")["dataset"]["id"] in card
        assert '"max_steps": 6' in card
        assert "time machine" not in card
        assert (folder / "prompt.md").is_file()
    # of three checkpoints the newest two are kept: each is several models large
    kept = {out / name for name in ("checkpoint-4", "checkpoint-6")}
    assert {path.parent for path in out.rglob("README.md")} == {out, *kept}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_ordinary(
    world: World, family: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines of the guide, which hold no code of ours, load it, ask it and print its answer."""
    out = f"ordinary-{family}"
    extra = ["--held-out-questions", str(world.folder / "questions.jsonl"), "--max-steps", "1"]
    extra += ["--held-out-max-new-tokens", "8", "--freeze-vision"]
    problem, options = "What is the colour of the first object?", ["A. red", "B. blue"]
    (world.folder / "questions.jsonl").write_text(
        json.dumps(
            {
                "problem": problem,
                "options": options,
                "solution": "A",
                "problem_type": "multiple choice",
                "media": [{"kind": "video", "path": "many.mp4"}],
            }
        )
    )
    write_clip(world.media / "many.mp4", num_frames=32, rate=4)
    assert world.run(out, *extra, family=family) == 0
    assert world.report(out)["adherence"]["num_questions"] == 1
    folder = world.folder / out
    found = _PLAIN.search((repository / "docs/guides/fine_tune.md").read_text("utf-8"))
    assert found
    code = found[1].replace("out/sft", str(folder)).replace("1024", "8")
    code = code.replace("clip.mp4", str(world.media / "many.mp4"))
    if family == "qwen3-vl":  # as the comment in the guide says
        code = code.replace('"longest_edge": 128', '"longest_edge": 16 * 128')
        code = code.replace('"shortest_edge": 28 * 28', '"shortest_edge": 16 * 32 * 32')
    assert "import train" not in code
    assert "from train" not in code
    said: dict[str, Any] = {}
    exec(code, said)
    assert capsys.readouterr().out
    by_card: dict[str, Any] = {}
    exec(card_code(folder, world.media / "many.mp4"), by_card)
    assert capsys.readouterr().out
    for name, value in said["inputs"].items():
        assert torch.equal(torch.as_tensor(by_card["inputs"][name]), torch.as_tensor(value)), name
    assert said["model"].generation_config.eos_token_id == said["processor"].tokenizer.eos_token_id
    with FrameLoader(world.media, spec=FrameSpec("uniform:16"), cache_dir=None) as loader:
        ours = VideoInputs(said["processor"], loader, TEMPLATES["p2r"]).prompt(
            question("many.mp4", problem=problem)
        )
    for name in ("input_ids", "mm_token_type_ids", "video_grid_thw"):
        assert torch.equal(said["inputs"][name], ours[name]), name
    pixels = said["inputs"]["pixel_values_videos"] - ours["pixel_values_videos"]
    # Frames are kept as JPEG of quality 95: a few of 255 levels, of some 65 per unit here.
    assert pixels.abs().mean() < 0.05
    before = load_file(tiny_model_folder(family) / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    tower = [name for name in before if "visual" in name]
    assert all(torch.equal(before[name], after[name]) for name in tower)  # frozen
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_lora_trains_adapters_and_saves_a_merged_model(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from train.modeling.loading import load_policy

    extra = ["--lora-rank", "4", "--gradient-checkpointing", "--max-steps", "2"]
    assert world.run("lora", *extra) == 0
    folder = world.folder / "lora"
    before = load_file(tiny_model_folder("qwen2.5-vl") / "model.safetensors")
    after = load_file(folder / "model.safetensors")
    assert {*before} == {*after}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers." in name and "visual" not in name for name in changed)
    assert (folder / "adapter" / "adapter_config.json").is_file()
    # The adapter alone is the same model.
    merged = load_policy(folder / "adapter").state_dict()
    saved = load_policy(folder).state_dict()
    # one adds A x B to the weights after, the other before loading: float32 rounding
    assert all(torch.allclose(merged[name], saved[name], atol=1e-6) for name in saved)
    capsys.readouterr()
    answers = []
    for of_adapter in (folder / "adapter", folder):
        exec(card_code(of_adapter, world.media / "clip0.mp4"), {})
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != ""
