"""`python -m train.push RUN OWNER/NAME`: a trained model to the Hub, listed before it is sent.

    python -m train.push out/rl me/my-model                       # which files those would be
    python -m train.push out/rl me/my-model --evaluation out/scores --upload

RUN is the output folder of `train.sft` or `train.rl`. What goes is the finished model: weights,
configuration, tokenizer, processor, the prompt, and its card with scores and the judge's agreement.
No checkpoint, ledger, rollout page, options file, frame or clip ever does.
"""

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cli.config import UsageError, parse_command, run_command
from cli.hub import PushOptions, Upload, publish
from cli.markdown_page import cell
from judges.backends.model_files.identity import weights_id

PROG = "train.push"
DESCRIPTION = "Send a trained model to the Hub; without --upload only list what would be sent."
CARD = "README.md"
_WEIGHTS = ("*.safetensors", "*.bin")
_FILES = (
    *_WEIGHTS,
    "*.safetensors.index.json",
    "*.bin.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.*",
    "*processor_config.json",
    "prompt.md",
    "answer_forms.toml",
    "LICENSE*",
    "NOTICE*",
)
_LEFT = ("training_args.bin", "optimizer*", "scheduler*", "rng_state*")
_OWN_FOLDER = re.compile(r"^folder = .*$", re.MULTILINE)
_USE = "## Use it with plain transformers\n"


class PushConfig(
    PushOptions, group="data", example="out/rl me/my-model --evaluation out/rl/evaluation"
):
    """Options of `python -m train.push`."""

    run_folder: Path
    """Output folder of a finished train.sft or train.rl."""
    evaluation: Path | None = None
    """Output folder of train.evaluate for these weights: its scores with their intervals go onto
    the card."""
    judge_audit: Path | None = None
    """Folder of an audit with a report (judges.audit report): how often the judge of this run
    agrees with people goes onto the card."""


def main(argv: Sequence[str] | None = None) -> int:
    """List the files of the model, and send them where asked."""
    config = parse_command(
        PushConfig, argv, prog=PROG, description=DESCRIPTION, positional=("run_folder", "repo")
    )
    folder = model_folder(config.run_folder)
    files: dict[str, Path | str] = {
        path.name: path for path in sorted(folder.iterdir()) if _is_of_the_model(path)
    }
    return publish(Upload("model", config.repo, {**files, CARD: card_text(config, folder)}), config)


def model_folder(run: Path) -> Path:
    """Where the finished model of a run lies. Raises UsageError."""
    for folder in (run / "model", run):
        has_weights = any(path for pattern in _WEIGHTS for path in folder.glob(pattern))
        if has_weights and (folder / CARD).is_file():
            return folder
    raise UsageError(
        f"{run} holds no finished model with its card; give the output folder of a train.sft or"
        " train.rl that has come to an end"
    )


def _is_of_the_model(path: Path) -> bool:
    if not path.is_file() or any(fnmatch(path.name, pattern) for pattern in _LEFT):
        return False
    return any(fnmatch(path.name, pattern) for pattern in _FILES)


def card_text(config: PushConfig, folder: Path) -> str:
    """The model's card, which loads from the Hub, with scores and the judge's agreement."""
    text = (folder / CARD).read_text("utf-8")
    loads = f'folder = snapshot_download("{config.repo}")'
    loads = f"from huggingface_hub import snapshot_download\n\n{loads}"
    text = _OWN_FOLDER.sub(loads, text, count=1)
    sections = []
    if config.evaluation is not None:
        sections.append(scores_section(config.evaluation, folder))
    if config.judge_audit is not None:
        sections.append(judge_section(config.judge_audit, _judge_of(config.run_folder)))
    return text.replace(_USE, "".join(f"{section}\n" for section in sections) + _USE, 1)


def scores_section(evaluation: Path, folder: Path) -> str:
    """Mean scores with their 95 % intervals. Raises UsageError for scores of other weights."""
    report = _report(evaluation, "--evaluation", "train.evaluate")
    conditions = report["conditions"]
    if weights_id(folder) not in conditions["model"]:
        raise UsageError(
            f"--evaluation {evaluation} is one of other weights ({conditions['model']}); evaluate"
            f" those in {folder}"
        )
    if conditions.get("control"):
        raise UsageError(
            f"--evaluation {evaluation} is a control ({conditions['control']}), no score of the"
            " model"
        )
    rows = [
        f"| {name} | {found['score']:.1%} | {_interval(found)} | {found['n']:,} |"
        for name, found in report["overall"].items()
        if name in ("strict", "tolerant")
    ]
    about = [f"{name}: {conditions[name]}" for name in ("frames", "prompt_id", "decoding")]
    return "\n".join(
        [
            "## Scores",
            "",
            "| answers read | mean score | 95 % interval | questions |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Intervals resample videos. {cell('; '.join(about))}.",
            "",
        ]
    )


def judge_section(audit: Path, judge: str) -> str:
    """How often the run's judge agrees with people. Raises UsageError."""
    report = _report(audit, "--judge-audit", "judges.audit report")
    found = [one for one in report["judges"] if one["judge"] == judge]
    if not found:
        asked = ", ".join(sorted({one["judge"] for one in report["judges"]})) or "none"
        raise UsageError(
            f"--judge-audit {audit} has no verdicts of this run's judge, {judge}, but of {asked};"
            " give an audit of that one"
        )
    rows = [
        f"| {cell(one['name'])} | {_share(one['against_people']['agreement'])}"
        f" | {_share(one['against_people']['specificity'])}"
        f" | {one['against_people']['num_rows']:,} |"
        for one in found
    ]
    return "\n".join(
        [
            "## The judge",
            "",
            "What perception was rewarded for is a language model's verdict. People labelled some"
            " of its verdicts:",
            "",
            "| judge | agrees with people | says no where people do | labelled rows |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _judge_of(run: Path) -> str:
    try:
        options = json.loads((run / "options.json").read_text("utf-8"))
        judge = options.get("judge")
    except (OSError, ValueError, AttributeError):
        judge = None
    if not isinstance(judge, str):
        raise UsageError(f"--judge-audit: {run} was trained without a judge; leave it out")
    return judge


def _report(folder: Path, option: str, command: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / "report.json").read_text("utf-8"))
        needed = found["overall" if option == "--evaluation" else "judges"]
    except (OSError, ValueError, LookupError, TypeError):
        needed = None
    if not needed:
        raise UsageError(
            f"{option} {folder} holds no report.json of {command}; give the folder of one"
        )
    assert isinstance(found, dict)
    return found


def _share(estimate: dict[str, Any]) -> str:
    value = estimate["value"]
    return "–" if value is None else f"{value:.1%} ({_interval(estimate)})"


def _interval(found: dict[str, Any]) -> str:
    low, high = found["low"], found["high"]
    return "no interval" if low is None or high is None else f"{low:.1%} to {high:.1%}"


if __name__ == "__main__":
    run_command(PROG, main)
