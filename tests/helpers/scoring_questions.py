"""Questions of each problem type for the answer tests."""

from schemas.questions import MediaRef, ProblemType, VideoQuestion

FOUR_OPTIONS = ("A. Dots", "B. Horizontal stripes", "C. Checks", "D. No pattern")


def question(
    problem_type: ProblemType, solution: str, options: tuple[str, ...] = ()
) -> VideoQuestion:
    return VideoQuestion(
        problem="What is asked?",
        options=options,
        solution=solution,
        media=(MediaRef(kind="video", path="clip.mp4"),),
        problem_type=problem_type,
    )


def choice_question(solution: str = "B", options: tuple[str, ...] = FOUR_OPTIONS) -> VideoQuestion:
    return question(ProblemType.MULTIPLE_CHOICE, solution, options)


def grounding_question(solution: str) -> VideoQuestion:
    return question(ProblemType.TEMPORAL_GROUNDING, solution)
