"""The subcommands of the console script, each with the module that `python -m` runs.

Modules are named, not imported: the overview and the completion load no more than declarations of
options, a subcommand no other one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cli.config import DEFAULT_ALIASES, Aliases, Config, config_parser
from cli.option_parser import OptionParser

SCRIPT = "vp2r"
"""Name of the console script, as pyproject.toml installs it."""


@dataclass(frozen=True)
class Command:
    """A subcommand. What it refers to is written as `module:name`."""

    module: str
    about: str
    config: str = ""
    """Its options: a class, or a function without arguments that makes one."""
    others: str = ""
    """A function that lists the names of options besides: those of TRL."""
    parts: str = ""
    """A table of subcommands of its own, each with a `config` and a `description`."""
    aliases: Aliases = ()  # type: ignore[assignment]

    def parsers(self) -> dict[str, OptionParser]:
        """The parser of its options; with `parts` of each part, by its name."""
        if self.parts:
            found: Mapping[str, Any] = named(self.parts)
            return {name: _parser(self.module, one.config) for name, one in found.items()}
        return {"": _parser(self.module, self.config, self.aliases or DEFAULT_ALIASES)}

    def other_flags(self) -> list[str]:
        """Flags besides those of its parser."""
        if not self.others:
            return []
        names: Callable[[], Iterable[str]] = named(self.others)
        return [f"--{name.replace('_', '-')}" for name in names()]


COMMANDS = {
    "build": Command(
        "pipeline.build_cot",
        "questions and media become a dataset of verified, judged traces",
        "pipeline.options:BuildConfig",
    ),
    "status": Command(
        "pipeline.status", "how far a build is, and its funnel", "pipeline.status:StatusConfig"
    ),
    "browse": Command(
        "pipeline.browse", "the rows of a build as pages", "pipeline.browse:BrowseConfig"
    ),
    "audit": Command(
        "judges.audit",
        "can a judge be trusted: draw, label, ask, report, gate",
        parts="judges.audit:SUBCOMMANDS",
    ),
    "sft": Command(
        "train.sft",
        "a dataset becomes a fine-tuned model",
        "train.sft_options:SftConfig",
        others="train.sft_options:trl_options",
    ),
    "rl": Command(
        "train.rl",
        "questions and rewards become a reinforced model",
        "train.rl_options:rl_config_class",
        others="train.rl_options:trl_options",
    ),
    "evaluate": Command(
        "train.evaluate",
        "a model's answers become scores",
        "train.evaluation.options:EvaluateConfig",
    ),
    "plan": Command(
        "train.plan",
        "what a training run needs of each GPU",
        "train.plan:planned_options",
        others="train.rl_options:trl_options",
    ),
    "push-data": Command(
        "pipeline.push",
        "a dataset to the Hub, listed before it is sent",
        "pipeline.push:PushConfig",
    ),
    "push-model": Command(
        "train.push", "a trained model to the Hub, the same way", "train.push:PushConfig"
    ),
    "demo": Command("sandbox.demo", "all of it in five minutes", "sandbox.demo:DemoConfig"),
    "learning": Command(
        "sandbox.learning",
        "a small model learns from random weights",
        "sandbox.lessons.folders:LearningConfig",
    ),
    "clips": Command("sandbox.clips", "render a synthetic world", "sandbox.clips:ClipsConfig"),
    "tiny-model": Command(
        "sandbox.tiny_model", "a small random model", "sandbox.tiny_model:TinyModelConfig"
    ),
}
"""Every subcommand, in the order of the overview."""


def named(reference: str) -> Any:
    """What `module:name` refers to; the module is imported."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _parser(prog: str, config: str, aliases: Aliases = DEFAULT_ALIASES) -> OptionParser:
    found = named(config)
    config_class: type[Config] = found if isinstance(found, type) else found()
    return config_parser(config_class, prog, "", aliases)
