"""The same question with its options in another order, or under other letters.

A judge whose verdict changes with them goes by place or letter. Only what means the same afterwards
is permuted: a text that speaks of `option B` or `the above` would mean something else.
"""

import random
import re
from collections.abc import Sequence
from math import factorial

from judges.scoring.choices import chosen_letter, read_choices
from schemas.questions import ProblemType, VideoQuestion

_NAMES_A_LETTER = re.compile(
    r"\b(?i:options?|choices?|answers?|alternatives?|letters?)[\s:]*[(\"']?[A-Z]\b(?!['’])"
    r"|\([A-Z]\)"
)
_MEANS_OTHER_OPTIONS = re.compile(
    r"\b(?i:all|none|both|any|some|each|either|neither|one|two)\s+(?i:of\s+)?"
    r"(?i:the\s+|these\s+|those\s+)?"
    r"(?i:above|below|these|those|others?|options?|choices?|answers?|previous|preceding)\b"
    r"|\b(?i:the|all|these)\s+(?i:other\s+)?(?i:options?|choices?|answers)\b"
    r"|\A\W*(?i:both\s+|either\s+|neither\s+|only\s+)?[A-Z]\s*(?:,|&|(?i:and|or|nor)\b)\s*[A-Z]\b"
)


def permuted_question(
    question: VideoQuestion, observation: str, number: int, seed: str
) -> VideoQuestion | None:
    """Permutation `number` (from 1) of the options, the same for the same `seed`; None without one.

    Odd numbers put the options in another order, lettered anew by place; even ones leave the order
    and deal the letters anew. Options, an option list inside the question's text, and the gold
    answer change together. None where there are no options or no further permutation of them, or
    where a text means options by letter or by place.
    """
    if question.problem_type is not ProblemType.MULTIPLE_CHOICE:
        return None
    choices = read_choices(question.options)
    letters, texts = [one.letter for one in choices], [one.text for one in choices]
    gold = chosen_letter(question.solution, question.options)
    places = _permutation(len(choices), (number - 1) // 2, f"{seed} {number % 2}")
    if gold is None or places is None:
        return None
    if number % 2:
        new_letters, new_texts = letters, [texts[place] for place in places]
        new_gold = letters[places.index(letters.index(gold))]
    else:
        new_letters, new_texts = [letters[place] for place in places], texts
        new_gold = new_letters[letters.index(gold)]
    old = list(zip(letters, texts, strict=True))
    new = list(zip(new_letters, new_texts, strict=True))
    rest, problem = _with_other_list(question.problem, old, new)
    if any(_NAMES_A_LETTER.search(text) for text in (rest, observation, *texts)):
        return None
    if any(_MEANS_OTHER_OPTIONS.search(text) for text in texts):
        return None
    changed = {
        "problem": problem,
        "options": tuple(f"{letter}. {text}" for letter, text in new),
        "solution": new_gold,
    }
    return VideoQuestion(**question.model_dump() | changed)


def _permutation(size: int, which: int, seed: str) -> list[int] | None:
    """Number `which` of the permutations of `size` places: never the identity, no two alike."""
    if which >= factorial(size) - 1:
        return None
    rng = random.Random(seed)
    seen = [list(range(size))]
    while len(seen) < which + 2:
        places = rng.sample(range(size), size)
        if places not in seen:
            seen.append(places)
    return seen[-1]


def _with_other_list(
    problem: str, old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    """The question's text without the option list that it may hold, and with the new list instead.

    White space, brackets and points between letters and texts stay as they are.
    """
    lines = [
        rf"(?<!\w)([(\[]?){re.escape(letter)}([)\].:]+\s*){re.escape(text)}(?!\w)"
        for letter, text in old
    ]
    found = re.search(r"([\s,;]*)".join(lines), problem)
    if found is None:
        return problem, problem
    # Groups: before and after the first letter, then for each further option gap, before, after.
    marks = ["", *found.groups()]
    listed = "".join(
        f"{gap}{opening}{letter}{closing}{text}"
        for (gap, opening, closing), (letter, text) in zip(
            zip(marks[::3], marks[1::3], marks[2::3], strict=True), new, strict=True
        )
    )
    before, after = problem[: found.start()], problem[found.end() :]
    return before + after, before + listed + after
