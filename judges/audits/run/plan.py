"""The judge requests of a run: for every row the plain one, repeats, permutations and probes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from judges.audits.records import ANSWER, COMMIT_FIRST, REAL, AuditItem, AuditVerdict
from judges.audits.run.leak_probes import probe_text
from judges.audits.run.prompt_variants import RequestSettings, judge
from judges.backends.base import ChatRequest
from judges.backends.call_records import CallResult
from judges.option_permutations import permuted_question
from judges.scoring.answer_score import validate_gold
from judges.sufficiency import Caller
from schemas.questions import VideoQuestion


@dataclass(frozen=True)
class Plan:
    """Which requests a run makes; probes and permutations once for each variant."""

    variants: tuple[str, ...]
    repeats: int = 1
    num_permutations: int = 0
    probes: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class JudgeRequest:
    """One verdict to get."""

    item: AuditItem
    variant: str
    question: VideoQuestion
    observation: str
    permutation: int = 0
    probe: str = REAL
    repeat: int = 0


def judge_requests(
    items: Sequence[AuditItem], all_items: Sequence[AuditItem], plan: Plan, left_out: Counter[str]
) -> Iterator[JudgeRequest]:
    """Every verdict to get on `items`, row by row; what cannot be asked is counted in `left_out`.

    `all_items` are those that may lend their observation to a probe.
    """
    for item in items:
        for variant in plan.variants:
            needs_gold = variant in (COMMIT_FIRST, ANSWER)
            if needs_gold and (complaint := validate_gold(item.question)):
                left_out[f"{variant}: {complaint}"] += 1
                continue
            plain = JudgeRequest(item, variant, item.question, item.observation)
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


class RecordedCalls:
    """Calls made for one verdict, booked on the step `audit` and the row's own question.

    A permuted question has another content, so another id, but it is the same question.
    """

    def __init__(self, calls: Caller, question_id: str, *, sends_seed: bool) -> None:
        self._calls = calls
        self._question_id = question_id
        self._sends_seed = sends_seed
        self.keys: list[str] = []

    async def call(self, request: ChatRequest) -> CallResult:
        """Make the call and remember its key."""
        sampling = request.sampling
        if self._sends_seed:
            sampling = (*sampling, ("seed", float(request.draw)))
        result = await self._calls.call(
            replace(request, sampling=sampling, question_id=self._question_id, step="audit")
        )
        self.keys.append(result.call_key)
        return result


async def verdict_on(
    request: JudgeRequest,
    judge_spec: str,
    calls: Caller,
    settings: RequestSettings,
    *,
    sends_seed: bool = False,
) -> AuditVerdict:
    """The judge's verdict. Raises StopRequested.

    `sends_seed` sends the number of the repeat as seed, to servers that sample and take one.
    """
    recorded = RecordedCalls(calls, request.item.question.question_id, sends_seed=sends_seed)
    judged = await judge(
        recorded,
        request.question,
        request.observation,
        variant=request.variant,
        repeat=request.repeat,
        settings=settings,
    )
    reason = judged.verdict.unscored_reason
    return AuditVerdict(
        item_id=request.item.item_id,
        judge=judge_spec,
        variant=request.variant,
        permutation=request.permutation,
        probe=request.probe,
        repeat=request.repeat,
        verdict=judged.verdict.verdict,
        unscored_reason=reason.value if reason else "",
        prompt_id=judged.prompt_id,
        call_key=recorded.keys[-1],
        seconds=None,
        cost_usd=None,
        reply=judged.reply or judged.failure,
        call_keys=tuple(recorded.keys),
        probe_text=request.observation if request.probe else "",
    )
