"""What a run asks: for every row the plain question, repeats, permutations and probes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from judges.answers import validate_gold
from judges.audits.permutations import permuted_question
from judges.audits.probes import probe_text
from judges.audits.records import COMMIT_FIRST, REAL, AuditItem, AuditVerdict
from judges.audits.variants import Asking, judge
from judges.backends.base import ChatRequest
from judges.backends.call_records import CallResult
from judges.sufficiency import Caller
from schemas.questions import VideoQuestion


@dataclass(frozen=True)
class Plan:
    """Which ways of asking a run takes. Probes and permutations are asked once by each variant."""

    variants: tuple[str, ...]
    repeats: int = 1
    num_permutations: int = 0
    probes: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Ask:
    """One verdict to get."""

    item: AuditItem
    variant: str
    question: VideoQuestion
    observation: str
    permutation: int = 0
    probe: str = REAL
    repeat: int = 0


def asks(
    items: Sequence[AuditItem], all_items: Sequence[AuditItem], plan: Plan, left_out: Counter[str]
) -> Iterator[Ask]:
    """Every verdict to get on `items`, row by row; what cannot be asked is counted in `left_out`.

    `all_items` are those that may lend their observation to a probe.
    """
    for item in items:
        for variant in plan.variants:
            if variant == COMMIT_FIRST and (complaint := validate_gold(item.question)):
                left_out[f"{COMMIT_FIRST}: {complaint}"] += 1
                continue
            plain = Ask(item, variant, item.question, item.observation)
            for repeat in range(plan.repeats):
                yield replace(plain, repeat=repeat)
            for number in range(1, plan.num_permutations + 1):
                question = permuted_question(
                    item.question, item.observation, number, f"{plan.seed} {item.item_id}"
                )
                if question is None:
                    left_out["permutations: no options, or none that can change places"] += 1
                    continue
                yield replace(plain, question=question, permutation=number)
            for probe in plan.probes:
                text = probe_text(probe, item, all_items, plan.seed)
                if text is None:
                    left_out[f"probe {probe}: no other video in the sample"] += 1
                    continue
                yield replace(plain, observation=text, probe=probe)


class NotedCalls:
    """Calls made for one verdict: on account of the audit, about the row's own question.

    A permuted question has another content, so another id, but it is the same question.
    """

    def __init__(self, calls: Caller, question_id: str, *, seeds_draws: bool) -> None:
        self._calls = calls
        self._question_id = question_id
        self._seeds_draws = seeds_draws
        self.keys: list[str] = []

    async def call(self, request: ChatRequest) -> CallResult:
        """Make the call and remember its key."""
        sampling = request.sampling
        if self._seeds_draws:
            sampling = (*sampling, ("seed", float(request.draw)))
        result = await self._calls.call(
            replace(request, sampling=sampling, question_id=self._question_id, step="audit")
        )
        self.keys.append(result.call_key)
        return result


async def answer(
    ask: Ask, judge_spec: str, calls: Caller, asking: Asking, *, seeds_draws: bool = False
) -> AuditVerdict:
    """The judge's verdict on `ask`. Raises StopRequested.

    `seeds_draws` sends each draw's number as seed, to servers that sample and take one.
    """
    noted = NotedCalls(calls, ask.item.question.question_id, seeds_draws=seeds_draws)
    judged = await judge(
        noted,
        ask.question,
        ask.observation,
        variant=ask.variant,
        repeat=ask.repeat,
        asking=asking,
    )
    reason = judged.verdict.unscored_reason
    return AuditVerdict(
        item_id=ask.item.item_id,
        judge=judge_spec,
        variant=ask.variant,
        permutation=ask.permutation,
        probe=ask.probe,
        repeat=ask.repeat,
        verdict=judged.verdict.verdict,
        unscored_reason=reason.value if reason else "",
        prompt_id=judged.prompt_id,
        call_key=noted.keys[-1],
        seconds=None,
        cost_usd=None,
        reply=judged.reply or judged.failure,
        call_keys=tuple(noted.keys),
        probe_text=ask.observation if ask.probe else "",
    )
