"""One declaration per option, one name per option, and former names that go on working."""

import importlib
import inspect
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from helpers.config_classes import product_config_classes

from cli.config import (
    Config,
    UsageError,
    config_parser,
    read_config,
    with_present_names,
)
from cli.config_class import GROUPS


@pytest.fixture(scope="session")
def config_classes(repository: Path) -> list[type[Config]]:
    return product_config_classes(repository)


def declarations(classes: list[type[Config]]) -> dict[str, set[str]]:
    """Option -> the classes that declare it."""
    found: dict[str, set[str]] = defaultdict(set)
    for cls in classes:
        for name in inspect.get_annotations(cls):
            if name in cls.model_fields:
                found[name].add(f"{cls.__module__}.{cls.__qualname__}")
    return found


def test_every_option_is_declared_in_one_class(config_classes: list[type[Config]]) -> None:
    found = declarations(config_classes)
    assert len(found) > 120
    several = {name: sorted(places) for name, places in found.items() if len(places) > 1}
    assert not several, "declare it in cli/option_groups.py (or a group of the room), once"


def test_the_count_sees_a_second_declaration() -> None:
    class First(Config):
        shared: int = 1
        """One."""

    class Second(Config):
        shared: int = 1
        """One."""

    class Third(First, defaults={"shared": 2}):
        own: int = 1
        """One."""

    found = declarations([First, Second, Third])
    assert (len(found["shared"]), len(found["own"])) == (2, 1)


def commands(classes: list[type[Config]]) -> list[type[Config]]:
    """What a command line is read into: the classes that no other one builds on."""
    return [cls for cls in classes if cls.__name__.endswith("Config") and not cls.__subclasses__()]


def a_value_for(field: Any) -> list[str]:
    """The words of a valid value of a field, other than its default."""
    annotation = next((a for a in get_args(field.annotation) if a is Path), field.annotation)
    kinds = get_args(annotation) or (annotation,)
    if annotation is bool:
        return []
    if get_origin(annotation) is Literal:
        return [next(choice for choice in kinds if choice != field.default)]
    return ["0.5" if float in kinds else "3" if int in kinds else "x"]


def read_by_its_old_name(cls: type[Config], old: str, new: str) -> str:
    """Give the old flag alone: the new option's value, and what is said on stderr.

    What a command misses besides is a complaint that comes after names were read.
    """
    flag = f"--{old.replace('_', '-')}"
    words = [flag, *a_value_for(cls.model_fields[new])]
    read = config_parser(cls, prog="p", description="").read(words)
    assert list(with_present_names(read, cls)) == [new]
    with suppress(UsageError):
        read_config(cls, words, prog="p", description="")
    return f"p: {flag} is now called --{new.replace('_', '-')}; the old name goes"


def test_every_former_name_is_read_as_its_new_one(
    config_classes: list[type[Config]], capsys: pytest.CaptureFixture[str]
) -> None:
    for cls in commands(config_classes):
        for old, new in cls.former_names.items():
            said = read_by_its_old_name(cls, old, new)
            assert capsys.readouterr().err.splitlines()[0].startswith(said)


class Renamed(NamedTuple):
    """An option of a command that has another name since this release."""

    module: str
    config: str
    old: str
    new: str


FORMER_NAMES = [
    Renamed(module, config, old, new)
    for module, config, names in (
        (
            "pipeline.options",
            "BuildConfig",
            {
                "reader": "video_decoder",
                "call_timeout_seconds": "timeout_seconds",
                "judge_retries": "retries",
            },
        ),
        (
            "train.rl_options",
            "RlConfig",
            {
                "reader": "video_decoder",
                "model_dtype": "dtype",
                "judge_timeout_seconds": "timeout_seconds",
                "judge_retries": "retries",
                "judge_device": "device",
                "judge_concurrency": "concurrency",
                "start_check": "parity_check",
                "appo_right_by": "appo_correctness",
                "published_rewards": "reward",
            },
        ),
        (
            "train.sft_options",
            "SftConfig",
            {"reader": "video_decoder", "model_dtype": "dtype"},
        ),
        (
            "train.evaluation.options",
            "EvaluateConfig",
            {
                "reader": "observation_reader",
                "video_reader": "video_decoder",
                "call_timeout_seconds": "timeout_seconds",
            },
        ),
        (
            "judges.audits.run.options",
            "RunConfig",
            {"max_tokens": "judge_max_tokens", "temperature": "judge_temperature"},
        ),
        ("judges.audits.label.command", "LabelConfig", {"reader": "video_decoder"}),
        ("judges.audits.report.command", "ReportConfig", {"reader": "video_decoder"}),
        ("sandbox.clips", "ClipsConfig", {"questions": "num_questions"}),
        ("sandbox.crucial_frames", "CrucialFramesConfig", {"questions": "num_questions"}),
        ("sandbox.demo", "DemoConfig", {"questions": "num_questions"}),
        (
            "sandbox.lessons.folders",
            "LearningConfig",
            {"kind": "family", "held_out_questions": "evaluation_questions"},
        ),
        ("sandbox.tiny_model", "TinyModelConfig", {"kind": "family", "preset": "model_preset"}),
    )
    for old, new in names.items()
]


# What a group renames for its other commands.
NEVER_HAD = {("EvaluateConfig", "model_dtype"), ("RunConfig", "judge_retries")}


@pytest.mark.parametrize("case", FORMER_NAMES, ids=lambda case: f"{case.config}-{case.old}")
def test_what_was_renamed_goes_on_working(
    case: Renamed, capsys: pytest.CaptureFixture[str]
) -> None:
    cls: type[Config] = getattr(importlib.import_module(case.module), case.config)
    assert cls.former_names[case.old] == case.new
    said = read_by_its_old_name(cls, case.old, case.new)
    assert capsys.readouterr().err.splitlines()[0].startswith(said)


def test_the_table_above_lists_every_renamed_option(config_classes: list[type[Config]]) -> None:
    listed = {(case.config, case.old) for case in FORMER_NAMES}
    for cls in commands(config_classes):
        for old in cls.former_names:
            never_had_it = (cls.__name__, old) in NEVER_HAD
            assert ((cls.__name__, old) in listed) != never_had_it, f"{cls.__name__}: {old}"


def test_no_help_shows_a_former_name(
    config_classes: list[type[Config]], capsys: pytest.CaptureFixture[str]
) -> None:
    for cls in commands(config_classes):
        with pytest.raises(SystemExit):
            read_config(cls, ["--help"], prog="p", description="")
        shown = capsys.readouterr().out.replace(",", " ").split()
        assert not [old for old in cls.former_names if f"--{old.replace('_', '-')}" in shown]


def test_every_option_with_choices_has_some(
    config_classes: list[type[Config]],
) -> None:
    for cls in commands(config_classes):
        for name, choices in cls.option_choices.items():
            assert tuple(choices()), f"{cls.__name__}: --{name} has no choices"


def test_every_option_stands_in_a_group_of_the_help(config_classes: list[type[Config]]) -> None:
    """Declared with the option: the class that has it says where it stands."""
    for cls in commands(config_classes):
        without = [name for name in cls.model_fields if name not in cls.option_groups]
        assert not without, f"{cls.__name__}: say group= where these are declared"
        assert {*cls.option_groups.values()} <= {*GROUPS}, cls.__name__


def test_help_shows_options_by_group_and_ends_with_an_example(
    config_classes: list[type[Config]],
) -> None:
    for cls in commands(config_classes):
        text = config_parser(cls, prog="p", description="").format_help()
        assert cls.example, f"{cls.__name__}: say example="
        assert text.endswith(f"\nexample:\n  python -m p {cls.example}\n")
        shown = ""
        for line in text.splitlines():
            shown = line.removesuffix(":") if line and line[0] != " " else shown
            flag = line.split()[0].rstrip(",") if line.startswith("  --") else ""
            name = flag[2:].replace("-", "_")
            field = cls.model_fields.get(name)
            if field is not None and not field.is_required():
                assert shown == GROUPS[cls.option_groups[name]], f"{cls.__name__} {flag}"


_POSITIONAL = ("audit", "out", "predictions", "run_folder", "repo")


def test_the_example_of_every_command_is_one_that_it_takes(
    config_classes: list[type[Config]],
) -> None:
    for cls in commands(config_classes):
        words = cls.example.split()
        count = next((place for place, one in enumerate(words) if one.startswith("--")), len(words))
        names = [name for name in _POSITIONAL if name in cls.model_fields][:count]
        if names == ["audit"]:  # given by a flag, so that lists may stand behind it
            words, names = ["--audit", *words], []
        assert len(names) == count or words[0] == "--audit"
        read_config(cls, words, prog="p", description="", positional=names)
