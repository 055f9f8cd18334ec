"""Every command and every option that a page names exists, asked of the real parsers."""

import re
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
from helpers.pages import ShownCommand, pages, prose, shown_commands

pytestmark = pytest.mark.heavy  # TRL's own options are loaded with TRL

_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_CODE_SPAN = re.compile(r"`([^`\n]+)`")
# Of other tools that the pages speak about, and of benchmarks.
OTHERS = {
    "--audits",
    "--shape",
    "--index-url",
    "--no-deps",
    "--model",
    "--model_args",
    "--reasoning_tags",
    # accelerate launch
    "--deepspeed_config_file",
    "--fsdp_version",
    "--machine_rank",
    "--multi_gpu",
    "--num_processes",
    "--use_deepspeed",
    "--use_fsdp",
    "--zero_stage",
    # of vLLM's server
    "--logprobs-mode",
    "--max-model-len",
    "--max-num-batched-tokens",
    "--no-enable-chunked-prefill",
    "--trust-request-mm-kwargs",
    "--weight-transfer-config",
    # of ms-swift
    "--num_generations",
    "--reward_funcs",
}
OF_PLUGINS = {"--entropy-strength"}  # docs/extending.md writes the plugin
WITH_TRL = ("train.sft", "train.rl", "train.plan")


@cache
def _flags(words: tuple[str, ...], option: str = "--help") -> frozenset[str]:
    """The flags that a command's own parser lists."""
    module = import_module(words[0])
    printed = StringIO()
    with redirect_stdout(printed):
        try:
            status = module.main([*words[1:], option])
        except SystemExit as end:
            status = end.code
    assert status == 0, words
    return frozenset(_FLAG.findall(printed.getvalue()))


def unknown_flags(shown: ShownCommand) -> set[str]:
    """The options of a shown command that it does not have; TRL is asked last."""
    unknown = shown.flags - _flags(shown.words) - {"--help", "--help-all", *OF_PLUGINS}
    if unknown and shown.words[0] in WITH_TRL:
        unknown -= _flags(shown.words, "--help-all")
    return {*unknown}


def test_every_command_of_every_page_has_the_options_it_is_shown_with(repository: Path) -> None:
    faults = [
        f"{page.relative_to(repository)}: {' '.join(shown.words)} has no {', '.join(sorted(bad))}"
        for page in pages(repository)
        for shown in shown_commands(page.read_text("utf-8"))
        if (bad := unknown_flags(shown))
    ]
    assert not faults, "\n".join(faults)


def test_every_option_in_running_text_is_one_of_some_command(repository: Path) -> None:
    """History may name options that are gone: the changelog and the log tell of their day."""
    shown = {
        command.words for page in pages(repository) for command in shown_commands(page.read_text())
    }
    known = OTHERS | {"--help", "--help-all"}
    for words in shown:
        known |= _flags(words)
    for module in WITH_TRL:
        known |= _flags((module,), "--help-all")
    faults = []
    for page in pages(repository):
        if page.name in ("CHANGELOG.md", "log.md"):
            continue
        spans = _CODE_SPAN.findall(prose(page.read_text("utf-8")))
        named = {flag for span in spans for flag in _FLAG.findall(span)}
        faults += [f"{page.relative_to(repository)}: {flag}" for flag in sorted(named - known)]
    assert not faults, "\n".join(faults)


def test_a_wrong_option_is_seen() -> None:
    (right, wrong, trl) = shown_commands(
        "```text\npython -m train.rl --algo grpo --max-steps 2\n"
        "accelerate launch -m pipeline.build_cot --reeder pyav\n```\n"
        "See `python -m judges.audit sample AUDIT --size 3`."
    )
    assert unknown_flags(right) == set()
    assert unknown_flags(wrong) == {"--reeder"}
    assert trl == ShownCommand(("judges.audit", "sample"), frozenset({"--size"}))
    assert unknown_flags(trl) == set()
