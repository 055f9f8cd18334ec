"""What ends a command within two seconds, before torch, transformers and TRL are loaded.

A folder of another command, changed options, a model that is nowhere, an option that nobody has, a
tracker that is not installed, rows of which nothing is known. Each check raises UsageError with one
sentence.
"""

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from cli.config import UsageError, say
from judges.backends.base import BackendUnavailableError
from judges.backends.model_files.names import why_no_model
from judges.backends.registry import refuse_unusable
from media.sampling import FrameSpec
from schemas.annotations.files import find_files

T = TypeVar("T")
TRAINING_PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft")
EVALUATION_PACKAGES = ("torch", "transformers", "accelerate")
# Where the fields of a TRL configuration are declared: package, file, class.
_CONFIG_SOURCES = {
    "SFTConfig": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "GRPOConfig": ("trl", "trainer/grpo_config.py", "GRPOConfig"),
    "": ("trl", "trainer/base_config.py", "_BaseConfig"),
    "TrainingArguments": ("transformers", "training_args.py", "TrainingArguments"),
}
# The names that transformers takes for --report-to, each with the module that it needs.
TRACKERS = {
    "azure_ml": "azureml",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
_NO_TRACKER = ("none", "all")


def needing_video(
    items: Sequence[T], mark_of: Callable[[T], bool | None], *, called: str, is_printed: bool
) -> list[T]:
    """--needs-video only: the items that are not marked as answerable without their video.

    How many that leaves out is printed where `is_printed`. Raises UsageError where none is marked
    either way, because then nothing is known about them, and where none is left.
    """
    marked = [(item, mark_of(item)) for item in items]
    if all(mark is None for _, mark in marked):
        raise UsageError(
            f"--needs-video only: none of the {len(items)} {called} is marked; expected "
            "`answerable_blind`, which pipeline.build_cot --blind-filter finds out (it is in its "
            "dataset, and with --export questions beside every question)"
        )
    kept = [item for item, mark in marked if mark is not True]
    if not kept:
        raise UsageError(f"--needs-video only leaves none of the {len(items)} {called}")
    if is_printed:
        say(f"--needs-video only: {len(items) - len(kept)} of {len(items)} {called} are left out")
    return kept


def refuse_missing_trackers(report_to: str | Collection[str] | None) -> None:
    """Raise UsageError for a tracker of --report-to that nobody knows or that is not installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    for name in names:
        if name in _NO_TRACKER:
            continue
        if name not in TRACKERS:
            raise UsageError(f"--report-to {name}: expected none, all or {', '.join(TRACKERS)}")
        module = TRACKERS[name]
        if module and find_spec(module) is None:
            raise UsageError(
                f"--report-to {name} needs the package {module.replace('_', '-')}, which is not"
                f" installed: pip install {module.replace('_', '-')}, or give --report-to none"
            )


def refuse_missing_model(model: str | Path, option: str = "--model") -> None:
    """Raise UsageError for a model that is no folder here and cannot be one of the hub's."""
    if why := why_no_model(str(model)):
        raise UsageError(f"{option} {model}: {why}")


def refuse_missing_folder(folder: Path, option: str, what: str) -> None:
    """Raise UsageError where there is no such folder. `what` says what it should hold."""
    if not folder.is_dir():
        raise UsageError(f"{option} {folder} is not a folder; give the folder {what}")


def refuse_missing_file(path: Path | None, option: str, what: str) -> None:
    """Raise UsageError where nothing lies at an option's path; one that is not given is fine."""
    if path is not None and not path.exists():
        raise UsageError(f"{option} {path}: there is no such file; give {what}")


def refuse_missing_questions(path: Path | None, option: str) -> None:
    """Raise UsageError where no question file is, or none that a pattern (`files/*.json`) names."""
    if path is None:
        return
    try:
        find_files(path)
    except ValueError as error:
        raise UsageError(f"{option} {path}: {error}; give one that is there") from None


def refuse_unusable_backends(specs: Mapping[str, str | None]) -> None:
    """Raise UsageError for a model that no provider is known for or that is nowhere.

    `specs` are by option; those that are not given are None.
    """
    for option, spec in specs.items():
        if spec is None:
            continue
        try:
            refuse_unusable(spec)
        except BackendUnavailableError as error:
            raise UsageError(f"{option}: {error}") from None


def refuse_unreadable_frames(frames: str, max_pixels: int) -> None:
    """Raise UsageError where --frames says no frame policy."""
    try:
        FrameSpec.parse(frames, max_pixels)
    except ValueError as error:
        raise UsageError(f"--frames {frames}: {error}") from None


def known_options(trl_config: str) -> frozenset[str] | None:
    """The names of a TRL configuration's fields, read from its source: that takes a tenth of a
    second, importing it half a minute. None where the source is not where it is expected."""
    names: set[str] = set()
    for key in (trl_config, "", "TrainingArguments"):
        package, file, class_name = _CONFIG_SOURCES[key]
        found = _fields_in(package, file, class_name)
        if not found:
            return None
        names |= found
    return frozenset(names)


@cache
def _fields_in(package: str, file: str, class_name: str) -> frozenset[str]:
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(places or ()), "")) / file
    if not path.is_file():
        return frozenset()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            declared = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            return frozenset(ast.unparse(each.target) for each in declared)
    return frozenset()
