"""Hyperparameters with which a small model learns the `tiny` world, as command-line options.

Found by trial on two CPU cores; `docs/log.md` records what was tried. Shared by `sandbox.demo` and
`sandbox.learning`.
"""

from dataclasses import dataclass
from pathlib import Path

Options = list[str]

# A faultless teacher, and one with systematic label noise: it mistakes green for yellow and circles
# for squares, and concludes times and numbers one too high. A judge that calls everything
# sufficient and a threshold of 0 let the noisy traces pass, on purpose. The third teacher puts more
# than half of its time spans one second too late.
TEACHER = "oracle:1"
JUDGE = "oracle:1"
NOISY_TEACHER = "oracle:2,confusion=0.75,off_by_one=0.3"
LATE_TEACHER = "oracle:1,late=0.6"
LENIENT_JUDGE = "oracle:2,false_yes=1"

MAX_NEW_TOKENS = 96  # traces take 30 to 50
# APPO's K1, K2 and K3, scaled to clips of 4 cells and traces of that length: at most a quarter of a
# trace's tokens are weighted per frame, so attention decides which.
SCORE_TOKENS, FRAMES_PER_ROLLOUT, TOKENS_PER_FRAME = 5, 1, 8


@dataclass(frozen=True)
class World:
    """A rendered world: its folder, how many clips and questions, its seed, its preset."""

    root: Path
    clips: int
    questions: int
    seed: int
    preset: str = "tiny"

    @property
    def questions_file(self) -> Path:
        """The questions about it."""
        return self.root / "questions.json"


@dataclass(frozen=True)
class TrainingSchedule:
    """Length and learning rate of fine-tuning."""

    epochs: float
    learning_rate: float
    warmup_steps: int
    batch_size: int = 32


CLEAN_SCHEDULE = TrainingSchedule(epochs=4, learning_rate=2e-3, warmup_steps=40)
NOISY_SCHEDULE = TrainingSchedule(epochs=2, learning_rate=1e-3, warmup_steps=10)
GROUNDING_SCHEDULE = TrainingSchedule(epochs=4, learning_rate=1e-3, warmup_steps=10)
# Rewards of the grounding template: the IoU in real seconds, or in whole ones as published.
GROUNDING_REWARDS = {
    "real seconds": ("next-gqa-accuracy=1", "next-gqa-format=0.5", "time-iou=1"),
    "whole seconds": ("next-gqa-accuracy=1", "next-gqa-format=0.5", "next-gqa-tiou=1"),
}


def clips(world: World) -> Options:
    """`sandbox.clips`: a world of clips without stills."""
    return [
        *("--preset", world.preset, "--out", str(world.root), "--stills", "0"),
        *("--clips", str(world.clips), "--num-questions", str(world.questions)),
        *("--seed", str(world.seed)),
    ]


def build(world: World, out: Path, cache: Path, *, has_label_noise: bool, limit: int) -> Options:
    """`pipeline.build_cot`: traces of the faultless teacher, or of the one with label noise."""
    generator, judge = (NOISY_TEACHER, LENIENT_JUDGE) if has_label_noise else (TEACHER, JUDGE)
    threshold = ["--threshold", "0"] if has_label_noise else []
    return [
        *("--questions", str(world.questions_file), "--media-root", str(world.root)),
        *("--generator", generator, "--judge", judge, *threshold, "--limit", str(limit)),
        *("--frame-cache", str(cache), "--concurrency", "64", "--out", str(out)),
    ]


def grounding_dataset(world: World, out: Path, *, limit: int) -> Options:
    """`sandbox.scripted_dataset`: traces with time spans, more than half of them a second late."""
    return [
        *("--media-root", str(world.root), "--template", "grounding"),
        *("--teacher", LATE_TEACHER, "--limit", str(limit), "--out", str(out)),
    ]


def fine_tune(
    model: Path,
    dataset: Path,
    world: World,
    out: Path,
    cache: Path,
    schedule: TrainingSchedule,
    *,
    seed: int,
) -> Options:
    """`train.sft`: AdamW with a cosine schedule that ends at 5 %.

    The target is the teacher's own answer, so that its label noise is learned.
    """
    return [
        *("--model", str(model), "--dataset", str(dataset), "--media-root", str(world.root)),
        *("--output-dir", str(out), "--frame-cache", str(cache), "--target", "teacher"),
        *("--num-train-epochs", str(schedule.epochs), "--batch-size", str(schedule.batch_size)),
        *("--per-device-train-batch-size", str(schedule.batch_size)),
        *("--learning-rate", str(schedule.learning_rate)),
        *("--warmup-steps", str(schedule.warmup_steps)),
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
    """`train.rl`: 8 questions per step, 8 rollouts each, one update; no length reward.

    `grounding_reward`, a key of GROUNDING_REWARDS, selects the `grounding` template.
    """
    template, rewards = "p2r", ["--judge", JUDGE]
    if grounding_reward:
        published = GROUNDING_REWARDS[grounding_reward]
        template, rewards = "grounding", ["--reward", *published]
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
    """`train.evaluate` with its default, near-greedy decoding."""
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
