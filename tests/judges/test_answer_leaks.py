"""Claims about the answer are leaks; what is seen is none, even when it is the answer."""

import time

import pytest

from judges.answer_leaks import find_answer_leak
from schemas.questions import MediaRef, ProblemType, VideoQuestion


def question(problem_type: ProblemType = ProblemType.MULTIPLE_CHOICE) -> VideoQuestion:
    has_options = problem_type is ProblemType.MULTIPLE_CHOICE
    return VideoQuestion(
        problem="What does the woman hold up?",
        options=("A. A pan", "B. A blue circle", "C. Her fist", "D. Nothing")
        if has_options
        else (),
        solution="B" if has_options else "2",
        media=(MediaRef(kind="video", path="clip.mp4"),),
        problem_type=problem_type,
    )


LEAKS = {
    # the answer is ...
    "the answer is B": "the answer is B",
    "I see her. The correct answer is a blue circle.": "The correct answer is a blue circle",
    "The answer must be her fist, as she lifts it.": "The answer must be her fist, as she lifts it",
    "Answer: C": "Answer: C",
    "**Answer:** C": "Answer: C",
    "Final answer = 5": "Final answer = 5",
    "The answer to the question is two.": "The answer to the question is two",
    "So the answer would be (D).": "the answer would be (D)",
    "This gives the answer as a blue circle.": "the answer as a blue circle",
    "THE ANSWER IS B": "THE ANSWER IS B",
    "The answer is shown to be B.": "The answer is shown to be B",
    "The question's answer is B": "The question's answer is B",
    'I think "the answer is B".': 'the answer is B"',
    "A blue circle, which is the correct answer.": "is the correct answer",
    "This makes it the right choice.": "makes it the right choice",
    # markup of answers
    "She lifts it. <answer>B</answer>": "<answer>B</answer>",
    "She lifts it. </ANSWER >": "</ANSWER >",
    r"She lifts it: \boxed{B}": r"\boxed{B}",
    # option letters
    "option C is correct": "option C is correct",
    "The person lifts it, which matches option (B).": "option (B)",
    "She shows her fist (option C).": "option C)",
    "Options A and D can be ruled out.": "Options A and D can be ruled out",
    "This rules out the other choices, so choice B remains.": "choice B remains",
    'I see "option B" here.': 'option B" here',
    "so B is right": "B is right",
    "She lifts it, therefore B is correct.": "B is correct",
    "It is clear that (C) must be the correct answer.": "(C) must be the correct answer",
    "B is the best option": "B is the best option",
    "**B** is correct.": "B is correct",
    "Option A is wrong because she holds no pan.": "Option A is wrong because she holds no pan",
    "correct choice: C": "correct choice: C",
    "The correct option is her fist.": "The correct option is her fist",
    "option c is correct": "option c is correct",
    "She lifts it. Therefore, B.": "Therefore, B",
    "I choose C.": "I choose C",
    "We would go with (B).": "We would go with (B)",
    "The blue shape supports answer B.": "supports answer B",
    "Ruling out A, she must hold her fist up.": "Ruling out A, she must hold her fist up",
}

SEEN = [
    # text that is read or heard in the video
    'the sign reads "B"',
    "the sign reads B",
    "The letter C is painted on the door.",
    'A slide shows the words "The answer is 42".',
    "The caption says: the answer is 42",
    'The host asks, "Is the answer B or C?"',
    "The banner reads 'Option B: the answer is love'.",
    "The text on the page reads Answer: 5",
    # seen things and counts that happen to be the answer
    "a blue circle appears at t=2",
    "The woman holds her fist up to the camera.",
    "There are two men in the street.",
    "The keyboard has an Option key next to the space bar.",
    "She presses the option B button on the remote control.",
    "He has no other option. A man enters the room.",
    "The only option A man has here is to run.",
    "a vitamin C bottle stands on the shelf",
    "Team B is right behind team A.",
    "Point B is right of point A, and point C is the true north mark.",
    "Player B is at the best position.",
    "A is right next to the door",
    # about an answer, but no claim about this one
    "The answer is not visible in the frames.",
    "The answer sheet is white.",
    "The answer is written on the board.",
    "The answer is hidden behind a red card.",
    "Her answer is yes, and the host nods.",
    "The student's answer is 7 and the teacher smiles.",
    "A man answers a question of the audience.",
    "The host asks what is the correct answer, and she hesitates.",
    "So A man walks in, and so I think of B flat.",
    "They vote on the right choice of paint.",
    "Based on the question, I need to notice what the woman holds.",
    "A woman answers A phone call.",
    "She chooses a blue circle, and a boy picks a card.",
    "",
]


@pytest.mark.parametrize("observation", LEAKS)
def test_a_claim_about_the_answer_is_flagged_with_its_words(observation: str) -> None:
    leak = find_answer_leak(question(), observation)
    assert leak is not None
    assert LEAKS[observation] in leak


@pytest.mark.parametrize("observation", SEEN)
def test_what_is_seen_is_no_leak_even_when_it_is_the_answer(observation: str) -> None:
    assert find_answer_leak(question(), observation) is None


def test_letters_are_options_only_where_the_question_has_them() -> None:
    assert find_answer_leak(question(), "option F is correct") is None
    assert (
        find_answer_leak(question(ProblemType.NUMERICAL), "The label says option B here.") is None
    )


@pytest.mark.parametrize("problem_type", list(ProblemType))
def test_claims_are_flagged_for_every_problem_type(problem_type: ProblemType) -> None:
    assert find_answer_leak(question(problem_type), "Two stand there, so the answer is 2.")


def test_a_leak_after_a_quotation_of_the_video_is_still_found() -> None:
    observation = 'The sign reads "The answer is 42". Hence the answer is B.'
    assert find_answer_leak(question(), observation) == "the answer is B"


@pytest.mark.parametrize(
    "piece",
    [
        "option ",
        "the answer ",
        '"',
        "correct ",
        "I ",
        " ",
        "so",
        "*",
        "the words ",
        "'a",
        "\n",
        "so, ",
        "answer is ",
    ],
)
@pytest.mark.heavy
def test_a_megabyte_is_read_in_linear_time(piece: str) -> None:
    """Quadratic patterns take minutes here; the limit is generous for slow machines."""
    observation = piece * (1_000_000 // len(piece))
    started = time.process_time()
    find_answer_leak(question(), observation)
    assert time.process_time() - started < 30
