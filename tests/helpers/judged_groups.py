"""Groups of rollouts whose observations decide the reply of a judge behind HTTP.

`ok` is Yes, `poor` No, `mute` nothing readable.
"""

from pathlib import Path
from typing import Any

from helpers.rollout_scenes import rollout_group
from servers.model_server import RunningServer

from schemas.questions import MediaRef, ProblemType, VideoQuestion
from train.rewards.judge_client import JudgeClient
from train.rewards.options import JudgeCallOptions
from train.rewards.segment_rewards import RewardConfig
from train.rollouts.types import RolloutGroup

RULES = [
    {"contains": ["### Observations", "mute"], "reply": "I would rather not say."},
    {"contains": ["### Observations", "poor"], "reply": "Too little. <judgement>No</judgement>"},
    {"contains": "### Observations", "reply": "It follows. <judgement>Yes</judgement>"},
]
QUESTION = VideoQuestion(
    problem="Which one moves?",
    options=("A. the ball", "B. the box", "C. the lamp"),
    solution="B",
    media=(MediaRef(kind="video", path="a.mp4"),),
    problem_type=ProblemType.MULTIPLE_CHOICE,
    time_clues=((1.0, 3.0),),
)
OTHER = QUESTION.model_copy(update={"problem": "Which one stays?"})
LIMITS = RewardConfig(perception_tokens=(0, 0), reasoning_tokens=(0, 0))


def text_of(observation: str, answer: str = "B") -> str:
    return (
        f"<observation>{observation}</observation> <think>so {answer}</think>"
        f"<answer>{answer}</answer>"
    )


def group_of(*observations: str, question: VideoQuestion = QUESTION) -> RolloutGroup:
    return rollout_group(question, [text_of(one) for one in observations])


def open_judge(
    server: RunningServer, folder: Path, *, attempts_cap: float = 0.002, **options: Any
) -> JudgeClient:
    return JudgeClient(
        f"openai:judge@{server.openai_url}",
        ledger_path=folder / "judge-0.duckdb",
        media_root=folder,
        options=JudgeCallOptions(**{"retries": 1, **options}),
        retry_seconds=(0.001, attempts_cap),
    )


def asked(server: RunningServer) -> int:
    return sum("completions" in request["path"] for request in server.requests())
