"""What a model says, apart from what it thinks before it says it.

Thinking ends with `</think>` or the mark of another family of models. Servers should take it off; a
template that opens the thinking in the prompt, a parser that is not set or a text without its
special tokens leaves it in the reply, the opening mark often missing. A verdict or answer in there
is a thought: it is never read.
"""

import re
from dataclasses import dataclass

_NAMES = (
    r"(?:\w{1,20}[:_])?(?:think(?:ing)?|thoughts?|reasoning|analysis|reflection|scratchpad|cot"
    r"|monologue)"
    r"(?:_\w{1,20})?"
)
_TOKENS = r"(?:think(?:ing)?|thoughts?|reasoning|inner_prefix)"
_MARK = re.compile(
    rf"""
    (?P<opening>
        <{_NAMES}(?:\s[^<>]{{0,200}})?(?<!/)>              # <think>, <seed:think>
      | &lt;{_NAMES}&gt;                                   # escaped on the way
      | \[{_TOKENS}\]                                      # [THINK]
      | ◁think▷
      | <[|｜](?:begin_of_|start_|begin_)?{_TOKENS}(?:_start|_begin)?[|｜]>
      | <\|channel\|?>\s*(?:analysis|commentary|thought)\b # harmony: all but its final channel
      | <unused94>
    )
  | (?P<end>
        <\s*\\?/\s*{_NAMES}\s*>
      | &lt;/{_NAMES}&gt;
      | \[/{_TOKENS}\]
      | ◁/think▷
      | <[|｜](?:/|end_of_|end_|stop_){_TOKENS}[|｜]>
      | <[|｜]{_TOKENS}_(?:end|stop)[|｜]>
      | <\|inner_suffix\|>
      | <\|channel\|>\s*final\s*(?:<\|message\|>)?
      | <\|begin_of_solution\|>
      | <channel\|>
      | <unused95>
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# Harmony whose special tokens were dropped: `analysisIt could be A. assistantfinalThe answer is B`.
_BARE_CHANNELS = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\s])")
_BARE_FINAL = "assistantfinal"
_ENDS_OF_TURN = (
    *("<|im_end|>", "<|end|>", "<|return|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "</s>"),
    *("<|end_of_text|>", "<|end_of_solution|>", "<end_of_turn>", "<｜end▁of▁sentence｜>"),
)
_MAX_ENDS_OF_TURN = 4


@dataclass(frozen=True)
class Spoken:
    """A reply without its thinking: `text` is what is left, ended thoughts are a line feed.

    `thoughts` are the ended ones, in order; what follows the last one begins at `after_at` in
    `text`. `open_at` is the place in `text` where thinking begins that does not end, or None.
    """

    text: str
    after_at: int = 0
    thoughts: tuple[str, ...] = ()
    open_at: int | None = None

    @property
    def said(self) -> str:
        """What follows the last thought, up to one that does not end: where a verdict stands."""
        return self.text[self.after_at : self.open_at]


def spoken(reply: str) -> Spoken:
    """Part what is said from what is thought. An end without a beginning ends what began the reply.

    A reply that thinks in several places says what stands between.
    """
    for _ in range(_MAX_ENDS_OF_TURN):
        end = reply.rstrip()
        reply = end[: end.rindex("<")] if end.endswith(_ENDS_OF_TURN) else reply
    if _BARE_CHANNELS.match(reply) and _BARE_FINAL in reply:
        thought, _, after = reply.rpartition(_BARE_FINAL)
        return Spoken(after, 0, (thought,))
    kept: list[str] = []
    thoughts: list[str] = []
    place, opened, after_at = 0, -1, 0
    for mark in _MARK.finditer(reply):
        if mark["opening"]:
            if opened < 0:
                kept.append(reply[place : mark.start()])
                place, opened = mark.start(), mark.end()
            continue
        thoughts.append(reply[opened if opened >= 0 else place : mark.start()])
        if opened < 0:
            kept.clear()
        kept.append("\n")
        place, opened = mark.end(), -1
        after_at = len(kept)
    open_at = sum(map(len, kept)) if opened >= 0 else None
    text = "".join([*kept, reply[place:]])
    return Spoken(text, sum(map(len, kept[:after_at])), tuple(thoughts), open_at)


def with_opened_thinking(prompt: str, reply: str) -> str:
    """A reply that never ends the thinking which its prompt's last words open begins with the mark.

    Without it, thinking that was cut off would look like an answer.
    """
    marks = list(_MARK.finditer(prompt))
    is_opened = marks and marks[-1]["opening"] and not prompt[marks[-1].end() :].strip()
    if not is_opened or spoken(reply).thoughts:
        return reply
    return f"{marks[-1][0]}{reply}"
