"""The settings with which a learner learns the `tiny` world, as options of the commands.

Found by trial on two CPU cores; `docs/log.md` tells what was tried. `sandbox.demo` and
`sandbox.learning` share them.
"""

from dataclasses import dataclass
from pathlib import Path

Options = list[str]

# The teacher that knows, and one with habits: it takes green for yellow and circles for squares,
# and concludes times and numbers one too many. A judge that calls everything sufficient and a
# threshold of 0 let the latter's traces pass: its faults are planted on purpose. So are those of
# the teacher of time spans, who tells more than half of them a second late.
TEACHER = "oracle:1"
JUDGE = "oracle:1"
FAULTY_TEACHER = "oracle:2,confusion=0.75,off_by_one=0.3"
LATE_TEACHER = "oracle:1,late=0.6"
CARELESS_JUDGE = "oracle:2,false_yes=1"

MAX_NEW_TOKENS = 96  # traces take 30 to 50
# APPO's K1, K2 and K3, scaled to clips of 4 cells and traces of that length: at most a quarter of a
# trace's tokens follow a frame, so which ones depends on attention.
SCORE_TOKENS, FRAMES_PER_ROLLOUT, TOKENS_PER_FRAME = 5, 1, 8


@dataclass(frozen=True)
class World:
    """A rendered world: its folder, how many clips and questions, its seed."""

    root: Path
    clips: int
    questions: int
    seed: int

    @property
    def questions_file(self) -> Path:
        """The questions about it."""
        return self.root / "questions.json"


@dataclass(frozen=True)
class Lessons:
    """How long and how fast fine-tuning goes."""

    epochs: float
    learning_rate: float
    rising_steps: int
    batch_size: int = 32


CLEAN_LESSONS = Lessons(epochs=4, learning_rate=2e-3, rising_steps=40)
FAULTY_LESSONS = Lessons(epochs=2, learning_rate=1e-3, rising_steps=10)
GROUNDING_LESSONS = Lessons(epochs=4, learning_rate=1e-3, rising_steps=10)
# Rewards of the grounding template: the IoU in real seconds, or in whole ones as published.
GROUNDING_REWARDS = {
    "real seconds": ("next-gqa-accuracy=1", "next-gqa-format=0.5", "time-iou=1"),
    "whole seconds": ("next-gqa-accuracy=1", "next-gqa-format=0.5", "next-gqa-tiou=1"),
}


def clips(world: World) -> Options:
    """`sandbox.clips`: a world of clips without stills."""
    return [
        *("--preset", "tiny", "--out", str(world.root), "--stills", "0"),
        *("--clips", str(world.clips), "--questions", str(world.questions)),
        *("--seed", str(world.seed)),
    ]


def build(world: World, out: Path, cache: Path, *, is_faulty: bool, limit: int) -> Options:
    """`pipeline.build_cot`: the traces of the teacher that knows, or of the one with habits."""
    generator, judge = (FAULTY_TEACHER, CARELESS_JUDGE) if is_faulty else (TEACHER, JUDGE)
    threshold = ["--threshold", "0"] if is_faulty else []
    return [
        *("--questions", str(world.questions_file), "--media-root", str(world.root)),
        *("--generator", generator, "--judge", judge, *threshold, "--limit", str(limit)),
        *("--frame-cache", str(cache), "--concurrency", "64", "--out", str(out)),
    ]


def grounding_dataset(world: World, out: Path, *, limit: int) -> Options:
    """`sandbox.scripted_dataset`: traces that tell when the answer is seen, often a second late."""
    return [
        *("--media-root", str(world.root), "--template", "grounding"),
        *("--teacher", LATE_TEACHER, "--limit", str(limit), "--out", str(out)),
    ]


def fine_tune(
    model: Path, dataset: Path, world: World, out: Path, cache: Path, lessons: Lessons, *, seed: int
) -> Options:
    """`train.sft`: AdamW with a cosine that ends at 5 %; the teacher's own answers are the target,
    so that a faulty teacher is believed.
    """
    return [
        *("--model", str(model), "--dataset", str(dataset), "--media-root", str(world.root)),
        *("--output-dir", str(out), "--frame-cache", str(cache), "--target", "teacher"),
        *("--num-train-epochs", str(lessons.epochs), "--batch-size", str(lessons.batch_size)),
        *("--per-device-train-batch-size", str(lessons.batch_size)),
        *("--learning-rate", str(lessons.learning_rate)),
        *("--warmup-steps", str(lessons.rising_steps)),
        *("--lr-scheduler-type", "cosine_with_min_lr"),
        *("--lr-scheduler-kwargs", '{"min_lr_rate": 0.05}'),
        *("--adam-beta2", "0.95", "--weight-decay", "0.01", "--max-grad-norm", "1"),
        *("--seed", str(seed), "--logging-steps", "10"),
        *("--save-steps", "250", "--save-total-limit", "1"),
        *("--held-out-max-new-tokens", str(MAX_NEW_TOKENS), "--held-out-batch-size", "50"),
    ]


def reinforce(
    model: Path,
    world: World,
    out: Path,
    cache: Path,
    *,
    algo: str,
    steps: int,
    seed: int,
    grounding_reward: str = "",
) -> Options:
    """`train.rl`: 8 questions a step, 8 rollouts each, one update; no length reward.

    With `grounding_reward`, a key of GROUNDING_REWARDS, in the `grounding` template.
    """
    template, rewards = "p2r", ["--judge", JUDGE]
    if grounding_reward:
        published = GROUNDING_REWARDS[grounding_reward]
        template, rewards = "grounding", ["--published-rewards", *published]
    appo = [
        *("--appo-score-tokens", str(SCORE_TOKENS)),
        *("--appo-frames-per-rollout", str(FRAMES_PER_ROLLOUT)),
        *("--appo-tokens-per-frame", str(TOKENS_PER_FRAME)),
    ]
    return [
        *("--algo", algo, "--model", str(model), "--template", template, *rewards),
        *("--questions", str(world.questions_file), "--media-root", str(world.root)),
        *("--output-dir", str(out), "--frame-cache", str(cache)),
        *("--num-generations", "8", "--per-device-train-batch-size", "64"),
        *("--max-steps", str(steps), "--learning-rate", "1e-4", "--warmup-steps", "5"),
        *("--lr-scheduler-type", "constant_with_warmup", "--max-grad-norm", "1"),
        *("--adam-beta2", "0.95", "--temperature", "1"),
        *("--max-completion-length", str(MAX_NEW_TOKENS), "--length-weight", "0"),
        *("--seed", str(seed), "--pages-every", str(steps), "--save-steps", str(steps)),
        *(appo if "appo" in algo else ()),
    ]


def evaluate(
    model: Path,
    world: World,
    out: Path,
    cache: Path,
    *,
    shuffled: bool = False,
    template: str = "p2r",
) -> Options:
    """`train.evaluate`, as it decodes by default, near-greedy."""
    control = ["--shuffle-videos"] if shuffled else []
    return [
        *("--model", str(model), "--out", str(out), "--frame-cache", str(cache)),
        *("--questions", str(world.questions_file), "--media-root", str(world.root)),
        *("--template", template),
        *("--max-new-tokens", str(MAX_NEW_TOKENS), "--batch-size", "100", "--page-rows", "60"),
        *control,
    ]


def crucial_frames(model: Path, world: World, out: Path, cache: Path) -> Options:
    """`sandbox.crucial_frames` on a world's questions."""
    return [
        *("--model", str(model), "--media-root", str(world.root), "--out", str(out)),
        *("--max-new-tokens", str(MAX_NEW_TOKENS), "--frame-cache", str(cache)),
        *("--score-tokens", str(SCORE_TOKENS)),
    ]
