"""`python -m sandbox.llama_judge --out DIR`: a tiny Llama that judges sandbox observations.

It is trained from random weights on the oracle's verdicts about the project's own sufficiency
prompt, in minutes, on one CPU core. The folder is an ordinary transformers model: use it as
`local:DIR`, or behind `transformers serve DIR`. It is evaluated through `local:` on held-out clips,
questions and observations; the table is printed and saved in `DIR/README.md`.

It knows the sandbox's world and language only: a stand-in for a real judge in tests.
"""

import asyncio
import io
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, field_validator

from cli.config import (
    EXIT_OK,
    UsageError,
    parse_command,
    print_config,
    require_packages,
    run_command,
)
from cli.option_groups import BatchSizeOptions, OutputOptions, SeedOptions
from cli.output_folder import full_disk_is_told, make_folder
from judges.backends.registry import BackendOptions, open_backend
from judges.sufficiency import verdict_of
from sandbox.models.judge_examples import ASIDES, INSUFFICIENT, SUFFICIENT, Example, Examples
from sandbox.models.judge_training import (
    StepLosses,
    TrainingSchedule,
    judge_tokenizer,
    train_judge,
)
from sandbox.option_groups import ClipCountOptions, TrainingStepsOptions, WorldPresetOptions
from sandbox.world.clips import NOTICE, PRESETS
from sandbox.world.facts import read_facts
from schemas.samples import Sufficiency

PROG = "sandbox.llama_judge"
_TITLE = "# A tiny Llama that judges sandbox observations"
_VOCABULARY_EXAMPLES = 600
_REPORT_STEPS = 100
_BATCH_SIZE = 16
_ALONE = 20
_HELD_OUT_SEED = 1_000_003  # far from any training seed, so that no clip is drawn for both
# The easy ones are learned quickly: most training examples are of the kinds that must be read.
_TRAINED_MANNERS = (
    *("crucial wrong",) * 4,
    *("crucial missing",) * 3,
    *("other clip",) * 2,
    *("nothing seen", "empty"),
)


class JudgeConfig(
    OutputOptions[Path],
    WorldPresetOptions,
    SeedOptions,
    TrainingStepsOptions,
    BatchSizeOptions[int],
    ClipCountOptions,
    defaults={"preset": "tiny", "steps": 1200, "batch_size": 32, "clips": 1500},
    notes={
        "output_dir": "A judge that this command made before is replaced.",
        "batch_size": "An even number of verdicts, half of them Yes.",
        "clips": "At least 20, for training examples.",
    },
    group="training",
    groups={"batch_size": "training"},
    example="--output-dir out/judge --minutes 15",
):
    """Options of `sandbox.llama_judge`."""

    minutes: float = Field(15, gt=0)
    """Time limit of the training; if it ends early, the number of steps is printed."""
    held_out: int = Field(600, ge=20, multiple_of=2)
    """Verdicts on other clips to evaluate on, half of them Yes."""

    @field_validator("clips")
    @classmethod
    def _has_enough_clips(cls, clips: int) -> int:
        if clips < 20:
            raise ValueError("training examples need at least 20 clips")
        return clips

    @field_validator("batch_size")
    @classmethod
    def _is_even(cls, batch_size: int) -> int:
        if batch_size % 2:
            raise ValueError("half of a batch are Yes: give an even number")
        return batch_size


class Judged(NamedTuple):
    """A held-out example and the judge's verdict."""

    example: Example
    verdict: Sufficiency

    @property
    def agrees(self) -> bool:
        """Whether judge and oracle agree; an unscored reply never agrees."""
        return self.verdict.verdict == ("yes" if self.example.is_sufficient else "no")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw held-out and training examples, train, save, evaluate, print the table."""
    config = parse_command(
        JudgeConfig,
        argv,
        prog=PROG,
        description="Train a tiny Llama on the oracle's verdicts, and save it as a judge.",
    )
    require_packages("torch", "transformers")
    out = config.output_dir
    _make_room(out)
    import torch

    print(NOTICE, file=sys.stderr)
    print_config(config)

    torch.set_num_threads(1)
    world, seed = PRESETS[config.preset], config.seed
    held_out = Examples(world, clips=config.held_out, seed=_HELD_OUT_SEED + seed)
    examples = held_out.draw(config.held_out)
    prompts = frozenset(example.request.text for example in examples)
    training_examples = Examples(
        world, clips=config.clips, seed=seed, insufficient=_TRAINED_MANNERS, without=prompts
    )
    tokenizer = judge_tokenizer(training_examples.draw(_VOCABULARY_EXAMPLES))
    schedule = TrainingSchedule(config.steps, config.batch_size, limit_seconds=60 * config.minutes)
    log = _StepLog(config.steps)
    model = train_judge(tokenizer, training_examples, world, schedule, seed=seed, report=log)
    with full_disk_is_told(out):
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    judged, speed = asyncio.run(judge_all(out, examples))
    report = "\n".join([log.summary(), *table(judged), speed])
    (out / "README.md").write_text(_card(config, report), encoding="utf-8")
    print(report)
    print(f"\nThe judge is in {out}: --judge local:{out}, or transformers serve {out}")
    return EXIT_OK


def _make_room(out: Path) -> None:
    """Create the folder; delete an earlier judge of this command, refuse other content."""
    card = out / "README.md"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    is_ours = card.is_file() and card.read_text(encoding="utf-8").startswith(_TITLE)
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise UsageError(
            f"--out {out} holds other files than a judge of this command: give an empty or a new"
            " folder"
        )
    make_folder(out)
    card.write_text(f"{_TITLE}\n\nNot trained yet.\n", encoding="utf-8")
    (out / "model.safetensors").unlink(missing_ok=True)


class _StepLog:
    """Prints the losses on stderr."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._recent: list[StepLosses] = []
        self._last: StepLosses | None = None

    def __call__(self, step: StepLosses) -> None:
        self._last = step
        self._recent.append(step)
        if step.number % _REPORT_STEPS == 0 or step.number == self._steps:
            count = len(self._recent)
            verdict = sum(each.verdict_loss for each in self._recent) / count
            word = sum(each.word_loss for each in self._recent) / count
            print(
                f"step {step.number} of {self._steps}, {step.seconds:.0f} s:"
                f" verdict loss {verdict:.3f}, word loss {word:.3f}",
                file=sys.stderr,
                flush=True,
            )
            self._recent.clear()

    def summary(self) -> str:
        """Steps and seconds, and whether the time limit ended the training."""
        assert self._last is not None  # there is at least one step
        done, seconds = self._last.number, self._last.seconds
        if done < self._steps:
            return f"trained {done} of {self._steps} steps: the {seconds:.0f} s allowed ran out"
        return f"trained {done} steps in {seconds:.0f} s"


async def judge_all(folder: Path, examples: Sequence[Example]) -> tuple[list[Judged], str]:
    """The verdicts of the judge in `folder`, called as `local:`, and its speed."""
    options = BackendOptions(device="cpu", local_batch_size=_BATCH_SIZE)
    backend = await open_backend(f"local:{folder}", options)
    try:
        started = time.monotonic()
        replies = await asyncio.gather(*(backend.complete(each.request) for each in examples))
        together = (time.monotonic() - started) / len(examples)
        started = time.monotonic()
        for each in examples[:_ALONE]:
            await backend.complete(each.request)
        alone = (time.monotonic() - started) / len(examples[:_ALONE])
    finally:
        await backend.aclose()
    speed = (
        f"one verdict takes {1000 * alone:.0f} ms alone,"
        f" {1000 * together:.0f} ms in batches of {_BATCH_SIZE}"
    )
    pairs = zip(examples, replies, strict=True)
    return [Judged(example, verdict_of(reply)) for example, reply in pairs], speed


def table(judged: Sequence[Judged]) -> list[str]:
    """Agreement with the oracle, beside baselines that do not read; then broken down."""
    total = len(judged)
    agreement = _share(one.agrees for one in judged)
    error = math.sqrt(agreement * (1 - agreement) / total)
    unscored = sum(one.verdict.verdict == "unscored" for one in judged)
    lines = [
        f"agreement with the oracle on {total} held-out verdicts ({unscored} unscored):",
        f"  {'this judge':32} {agreement:.3f}  (standard error {error:.3f})",
        f"  {'always yes':32} {_share(one.example.is_sufficient for one in judged):.3f}",
        f"  {'chance, at its rate of yes':32} {_chance(judged):.3f}",
        f"  {'best guess by statements counted':32} {_by_length(judged):.3f}",
        f"  {'faultless reader of the text':32} {_reader(judged):.3f}",
    ]
    breakdowns: tuple[tuple[str, Callable[[Judged], str], Iterable[str]], ...] = (
        ("kind of question", lambda one: one.example.truth.query.kind, ()),
        ("sufficient observation", lambda one: one.example.manner, SUFFICIENT),
        ("insufficient observation", lambda one: one.example.manner, INSUFFICIENT),
        ("claim or order in it", lambda one: one.example.aside, ASIDES),
    )
    for title, name_of, names in breakdowns:
        found: defaultdict[str, list[bool]] = defaultdict(list)
        for one in judged:
            found[name_of(one)].append(one.agrees)
        lines.append(f"by {title}:")
        for name in names or sorted(found):
            lines.append(f"  {name:32} {_share(found[name]):.3f}  of {len(found[name])}")
    return lines


def _share(outcomes: Iterable[bool]) -> float:
    values = list(outcomes)
    return sum(values) / len(values) if values else math.nan


def _chance(judged: Sequence[Judged]) -> float:
    """Expected agreement of independent verdicts with the same rates of yes."""
    says_yes = _share(one.verdict.verdict == "yes" for one in judged)
    says_no = _share(one.verdict.verdict == "no" for one in judged)
    is_yes = _share(one.example.is_sufficient for one in judged)
    return says_yes * is_yes + says_no * (1 - is_yes)


def _by_length(judged: Sequence[Judged]) -> float:
    """The best agreement on these verdicts of a rule that counts an observation's statements."""
    counts = Counter(
        (len(read_facts(one.example.observation)), one.example.is_sufficient) for one in judged
    )
    lengths = {length for length, _ in counts}
    return sum(max(counts[n, True], counts[n, False]) for n in lengths) / len(judged)


def _reader(judged: Sequence[Judged]) -> float:
    return _share(one.example.follows == one.example.is_sufficient for one in judged)


def _card(config: JudgeConfig, report: str) -> str:
    """The folder's README."""
    options = io.StringIO()
    print_config(config, options)
    return (
        f"{_TITLE}\n\nMade by `python -m {PROG}` ({NOTICE}). Trained from random weights on the"
        " oracle's verdicts about the sufficiency prompt; it knows the sandbox's language only.\n"
        f"\n```text\n{report}\n```\n\nOptions:\n\n```yaml\n{options.getvalue()}```\n"
    )


if __name__ == "__main__":
    run_command(PROG, main)
