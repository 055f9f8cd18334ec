"""`python -m sandbox.llama_judge --out DIR`: a tiny Llama that judges sandbox observations.

Trained from random weights on the oracle's verdicts about the project's own sufficiency prompt, in
minutes, on one CPU core. The folder is an ordinary transformers model: use it as `local:DIR`, or
behind `transformers serve DIR`. It is judged on clips, questions and observations that it has not
seen, through `local:`, and the table goes to the screen and to `DIR/README.md`.

It knows the sandbox's world and language, and nothing else: a stand-in for a real judge in tests.
"""

import asyncio
import io
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from judges.backends.registry import BackendOptions, open_backend
from judges.sufficiency import verdict_of
from sandbox.facts import read_facts
from sandbox.judge_examples import ASIDES, INSUFFICIENT, SUFFICIENT, Example, Examples
from sandbox.judge_training import Lessons, Step, judge_tokenizer, train_judge
from sandbox.world import NOTICE, PRESETS
from schemas.config import EXIT_OK, Config, UsageError, parse_command, print_config, run_command
from schemas.verdicts import Sufficiency

PROG = "sandbox.llama_judge"
_TITLE = "# A tiny Llama that judges sandbox observations"
_VOCABULARY_EXAMPLES = 600
_REPORT_STEPS = 100
_BATCH_SIZE = 16
_ALONE = 20
_SEED_OF_HELD_OUT = 1_000_003  # far from any seed of lessons, so that no clip is drawn for both
# The easy ones are soon learned: most lessons are about those that have to be read.
_LESSONS_ON = (
    *("crucial wrong",) * 4,
    *("crucial missing",) * 3,
    *("other clip",) * 2,
    *("nothing seen", "empty"),
)


class JudgeConfig(Config):
    """Options of `sandbox.llama_judge`."""

    output_dir: Path
    """Folder to save the model in; a judge that this command made before is replaced."""
    preset: Literal["tiny", "full"] = "tiny"
    """The world to judge, as for sandbox.clips."""
    seed: int = Field(0, ge=0)
    """Seed of the weights, the lessons and the held-out verdicts."""
    steps: int = Field(1200, ge=1)
    """Training steps; the same number and seed give the same weights on the same machine."""
    batch_size: int = Field(32, ge=2, multiple_of=2)
    """Verdicts per step, half of them Yes."""
    minutes: float = Field(15, gt=0)
    """Training ends after so many minutes, finished or not; how far it came is said."""
    clips: int = Field(1500, ge=20)
    """Clips to draw lessons from."""
    held_out: int = Field(600, ge=20, multiple_of=2)
    """Verdicts on other clips to judge in the end, half of them Yes."""


class Judged(NamedTuple):
    """A held-out example and the judge's verdict on it."""

    example: Example
    verdict: Sufficiency

    @property
    def agrees(self) -> bool:
        """Whether judge and oracle say the same; an unscored reply agrees with nobody."""
        return self.verdict.verdict == ("yes" if self.example.is_sufficient else "no")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw held-out verdicts and lessons, train, save, judge, print the table."""
    config = parse_command(
        JudgeConfig,
        argv,
        prog=PROG,
        description="Train a tiny Llama on the oracle's verdicts, and save it as a judge.",
    )
    out = config.output_dir
    _make_room(out)
    print(NOTICE, file=sys.stderr)
    print_config(config)

    import torch

    torch.set_num_threads(1)
    world, seed = PRESETS[config.preset], config.seed
    held_out = Examples(world, clips=config.held_out, seed=_SEED_OF_HELD_OUT + seed)
    examples = held_out.draw(config.held_out)
    prompts = frozenset(example.request.text for example in examples)
    lessons = Examples(
        world, clips=config.clips, seed=seed, insufficient=_LESSONS_ON, without=prompts
    )
    tokenizer = judge_tokenizer(lessons.draw(_VOCABULARY_EXAMPLES))
    plan = Lessons(config.steps, config.batch_size, limit_seconds=60 * config.minutes)
    log = _StepLog(config.steps)
    model = train_judge(tokenizer, lessons, world, plan, seed=seed, report=log)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

    judged, speed = asyncio.run(judge_all(out, examples))
    report = "\n".join([log.summary(), *table(judged), speed])
    (out / "README.md").write_text(_card(config, report), encoding="utf-8")
    print(report)
    print(f"\nThe judge is in {out}: --judge local:{out}, or transformers serve {out}")
    return EXIT_OK


def _make_room(out: Path) -> None:
    """Create the folder, without an earlier judge of this command; refuse any other content."""
    card = out / "README.md"
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: give a folder")
    is_ours = card.is_file() and card.read_text(encoding="utf-8").startswith(_TITLE)
    if out.exists() and any(out.iterdir()) and not is_ours:
        raise UsageError(
            f"--out {out} holds other files than a judge of this command: give an empty or a new"
            " folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    card.write_text(f"{_TITLE}\n\nNot trained yet.\n", encoding="utf-8")
    (out / "model.safetensors").unlink(missing_ok=True)


class _StepLog:
    """Says on stderr how the training goes."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._recent: list[Step] = []
        self._last: Step | None = None

    def __call__(self, step: Step) -> None:
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
        """How long it took, and whether time ran out."""
        assert self._last is not None  # the first step is always taken
        done, seconds = self._last.number, self._last.seconds
        if done < self._steps:
            return f"trained {done} of {self._steps} steps: the {seconds:.0f} s allowed ran out"
        return f"trained {done} steps in {seconds:.0f} s"


async def judge_all(folder: Path, examples: Sequence[Example]) -> tuple[list[Judged], str]:
    """The verdicts of the judge in `folder`, asked as `local:` as any user would, and its speed."""
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
    """Agreement with the oracle, beside what is reached without reading; then by slices."""
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
    slices: tuple[tuple[str, Callable[[Judged], str], Iterable[str]], ...] = (
        ("kind of question", lambda one: one.example.known.query.kind, ()),
        ("sufficient observation", lambda one: one.example.manner, SUFFICIENT),
        ("insufficient observation", lambda one: one.example.manner, INSUFFICIENT),
        ("claim or order in it", lambda one: one.example.aside, ASIDES),
    )
    for title, name_of, names in slices:
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
    """Expected agreement of two that say yes as often as these, but know nothing of each other."""
    says_yes = _share(one.verdict.verdict == "yes" for one in judged)
    says_no = _share(one.verdict.verdict == "no" for one in judged)
    is_yes = _share(one.example.is_sufficient for one in judged)
    return says_yes * is_yes + says_no * (1 - is_yes)


def _by_length(judged: Sequence[Judged]) -> float:
    """The most that counting an observation's statements can reach on these very verdicts."""
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
