"""Models to the Hub: exactly the files that were listed, by the real client to a hub of ours."""

import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from helpers.hard_places import TRACEBACK, environment
from helpers.training_world import tiny_model_folder
from servers.hub_server import Hub, running_hub

from cli.config import UsageError
from cli.hub import Upload
from judges.backends.model_files.identity import weights_id
from media.sampling import FrameSpec
from schemas.runs import start_run
from train.modeling.families import QWEN2_5_VL
from train.monitoring.model_card import VIDEO_P2R, ModelCard

JUDGE = "claude:claude-haiku-5-5"
LEFT_HERE = (
    "judge-0.duckdb",
    "metrics.jsonl",
    "pages/step-000001.html",
    "rollouts/step-000001.jsonl",
    "checkpoint-2/model.safetensors",
    "options.json",
    "index.html",
    "model/training_args.bin",
    "model/notes.txt",
    "model/frames/clip.png",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run of RL, with all that is not for others."""
    folder = tmp_path / "rl"
    copytree(tiny_model_folder("qwen2.5-vl"), folder / "model")
    card = ModelCard(
        command="train.rl",
        method="reinforcement learning (pa-grpo)",
        base_model="Qwen/Qwen2.5-VL-7B-Instruct",
        family=QWEN2_5_VL,
        facts={"judge": JUDGE},
        template="p2r",
        prompt_id="prompt-1",
        frames=FrameSpec("uniform:16"),
        options={},
        run=start_run("train.rl", {}).as_json(),
        papers=(VIDEO_P2R,),
    )
    card.write(folder / "model")
    for name in LEFT_HERE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret", "utf-8")
    (folder / "options.json").write_text(json.dumps({"judge": JUDGE, "algo": "pa-grpo"}), "utf-8")
    return folder


def push(*words: str | Path, hub: Hub | None = None) -> subprocess.CompletedProcess[str]:
    env = environment() | ({} if hub is None else hub.environment)
    command = [sys.executable, "-m", "train.push", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def listed(text: str) -> set[str]:
    return set(re.findall(r"^ *[\d,]+  (?!in )(\S+)$", text, re.MULTILINE))


def report(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(content), "utf-8")
    return folder


def evaluation(folder: Path, model: str, **more: str) -> Path:
    conditions = {"model": model, "frames": "uniform:16", "prompt_id": "prompt-1"}
    strict = {"n": 400, "score": 0.5125, "low": 0.46, "high": 0.561}
    return report(
        folder,
        {
            "conditions": conditions | {"decoding": "greedy", "control": ""} | more,
            "overall": {"strict": strict, "tolerant": strict | {"score": 0.53}},
        },
    )


@pytest.mark.heavy
def test_what_was_listed_is_sent_and_nothing_else(run: Path) -> None:
    with running_hub() as hub:
        first = push(run, "me/my-model", hub=hub)
        assert (first.returncode, hub.requests) == (0, []), first.stderr
        assert "nothing was sent" in first.stdout
        sent = push(run, "me/my-model", "--upload", hub=hub)
        assert sent.returncode == 0, sent.stderr
        files = hub.repositories["model/me/my-model"]
        assert set(files) == listed(first.stdout) == listed(sent.stdout)
        assert hub.private["model/me/my-model"]
    assert {"README.md", "config.json", "model.safetensors", "prompt.md"} <= set(files)
    assert files["model.safetensors"] == (run / "model/model.safetensors").read_bytes()
    assert not [name for name, content in files.items() if content == b"secret"]
    card = files["README.md"].decode()
    assert 'folder = snapshot_download("me/my-model")' in card
    assert str(run) not in card
    compile(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0], "card", "exec")


@pytest.mark.heavy
def test_a_hub_that_refuses_is_one_sentence(run: Path) -> None:
    with running_hub() as hub:
        wrong = Hub(url=hub.url)
        env = environment() | wrong.environment | {"HF_TOKEN": "hf_of_nobody"}
        done = subprocess.run(
            [sys.executable, "-m", "train.push", str(run), "me/my-model", "--upload"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not any(hub.repositories.values())
    assert done.returncode == 2
    assert TRACEBACK not in done.stderr
    assert "hf auth login" in done.stderr
    assert "hf_of_nobody" not in done.stdout + done.stderr


def test_scores_and_the_judges_agreement_come_onto_the_card(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from train.push import PushConfig, card_text

    scores = evaluation(tmp_path / "scores", f"m ({weights_id(run / 'model')})")
    share = {"value": 0.91, "low": 0.86, "high": 0.95}
    judged = {"name": "haiku, sufficiency", "judge": JUDGE}
    against = {"agreement": share, "specificity": share | {"value": 0.8}, "num_rows": 180}
    audit = report(tmp_path / "audit", {"judges": [judged | {"against_people": against}]})
    config = PushConfig(run_folder=run, repo="me/m", evaluation=scores, judge_audit=audit)
    text = card_text(config, run / "model")
    assert "| strict | 51.2% | 46.0% to 56.1% | 400 |" in text
    assert "| tolerant | 53.0% |" in text
    row = "| haiku, sufficiency | 91.0% (86.0% to 95.0%) | 80.0% (86.0% to 95.0%) | 180 |"
    assert row in text
    assert text.index("## Scores") < text.index("## The judge") < text.index("## Use it with")


def test_scores_of_other_weights_and_of_controls_are_refused(run: Path, tmp_path: Path) -> None:
    from train.push import PushConfig, card_text

    def refused(**given: Path) -> str:
        with pytest.raises(UsageError) as error:
            card_text(PushConfig(run_folder=run, repo="me/m", **given), run / "model")
        return str(error.value)

    weights = weights_id(run / "model")
    assert "of other weights" in refused(evaluation=evaluation(tmp_path / "a", "m (weights-2)"))
    control = evaluation(tmp_path / "b", f"m ({weights})", control="another clip's frames")
    assert "is a control" in refused(evaluation=control)
    other = report(tmp_path / "c", {"judges": [{"judge": "openai:gpt"}]})
    assert "has no verdicts of this run's judge" in refused(judge_audit=other)
    assert "holds no report.json" in refused(judge_audit=tmp_path)


def test_a_run_without_a_finished_model_is_refused(run: Path) -> None:
    (run / "model/README.md").unlink()
    done = push(run, "me/my-model")
    assert done.returncode == 2
    assert "holds no finished model with its card" in done.stderr


@pytest.mark.parametrize(
    "name",
    ["judge-0.duckdb", "a/cot.DUCKDB", "pages/1.html", "rollouts/x.txt", "answers.jsonl", ".env"],
)
def test_what_is_private_is_never_in_a_list(name: str) -> None:
    with pytest.raises(UsageError, match="is not for publication"):
        Upload("model", "me/m", {name: "x"})


@pytest.mark.heavy
@pytest.mark.parametrize("command", ["train.sft", "train.rl"])
def test_trls_own_upload_is_refused_and_names_this_one(command: str) -> None:
    words = [command, "--push-to-hub", "--output-dir", "o", "--model", "m", "--media-root", "."]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--push-to-hub cannot be given" in done.stderr
    assert "python -m train.push RUN OWNER/NAME" in done.stderr
