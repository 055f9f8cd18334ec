"""APPO's token weights as plain loops over Python floats (float64), written from the paper.

arXiv:2602.23823 section 3.2 and supplement A.2; "released" follows the published code where it
differs from the paper. Nothing here is fast, vectorised or shared with the product's code.
"""

import math

Matrix = list[list[float]]


def naive_frame_scores(attention: list[Matrix], score_tokens: int) -> Matrix:
    scores = []
    for rollout in attention:
        row = []
        for frame in range(len(rollout[0])):
            highest = sorted((token[frame] for token in rollout), reverse=True)[:score_tokens]
            row.append(sum(highest) / len(highest))
        scores.append(row)
    return scores


def naive_select_frames(
    attention: list[Matrix],
    rewards: list[float],
    score_tokens: int,
    frames_per_rollout: int,
    strategy: str,
    reward_threshold: float,
) -> set[int]:
    num_frames = len(attention[0][0])
    if strategy == "every-frame":
        return set(range(num_frames))
    psi = []
    for row in naive_frame_scores(attention, score_tokens):
        ranking = sorted(range(num_frames), key=lambda frame: (-row[frame], frame))
        psi.append(set(ranking[:frames_per_rollout]))
    right: set[int] = set()
    wrong: set[int] = set()
    num_right = 0
    for frames, reward in zip(psi, rewards, strict=True):
        if reward >= reward_threshold:
            right |= frames
            num_right += 1
        elif reward < reward_threshold:
            wrong |= frames
    everyone = set().union(*psi)
    return {
        "soft": right,
        "hard": right - wrong,
        "soft-or-all": right if num_right else everyone,
        "all": everyone,
    }[strategy]


def naive_released_divergence(slot: Matrix) -> float:
    """`slot[i][v]` are log-probs: clamped log ratios to the mean of log-probs, summed over v."""
    total = 0.0
    for row in slot:
        for entry, logprob in enumerate(row):
            mean = sum(other[entry] for other in slot) / len(slot)
            distance = min(11.0, max(-11.0, mean - logprob))
            total += math.exp(distance) - distance - 1.0
    return total / len(slot)


def naive_kl_divergence(slot: Matrix) -> float:
    """sum_i KL(p_i || E[p]), E the arithmetic mean of the probabilities."""
    total = 0.0
    for row in slot:
        for entry, logprob in enumerate(row):
            mean = sum(math.exp(other[entry]) for other in slot) / len(slot)
            if logprob > -math.inf:
                total += math.exp(logprob) * (logprob - math.log(mean))
    return total


def naive_token_weights(
    attention: list[Matrix],
    logprobs: list[Matrix],
    mask: list[list[int]],
    frames: set[int],
    tokens_per_frame: int,
    max_weight: float,
    divergence: str,
) -> Matrix:
    num_rollouts, num_tokens = len(mask), len(mask[0])
    num_entries = len(logprobs[0][0])
    measure = {"released": naive_released_divergence, "kl": naive_kl_divergence}[divergence]
    sums = [[0.0] * num_tokens for _ in range(num_rollouts)]
    counts = [[0] * num_tokens for _ in range(num_rollouts)]
    for frame in sorted(frames):
        chosen = []
        for rollout in range(num_rollouts):
            ranking = sorted(
                range(num_tokens), key=lambda n, i=rollout: (-attention[i][n][frame], n)
            )
            chosen.append(sorted(ranking[:tokens_per_frame]))
        slots = []
        for slot in range(len(chosen[0])):
            rows = []
            for rollout in range(num_rollouts):
                token = chosen[rollout][slot]
                if mask[rollout][token]:
                    rows.append(logprobs[rollout][token])
                else:
                    rows.append([-math.log(num_entries)] * num_entries)
            slots.append(measure(rows))
        for slot, value in enumerate(slots):
            intensity = (value - min(slots)) / (max(slots) - min(slots) + 1e-8)
            for rollout in range(num_rollouts):
                sums[rollout][chosen[rollout][slot]] += intensity
                counts[rollout][chosen[rollout][slot]] += 1
    return [
        [
            1.0 + (max_weight - 1.0) * sums[i][n] / counts[i][n]
            if counts[i][n] and mask[i][n]
            else 1.0
            for n in range(num_tokens)
        ]
        for i in range(num_rollouts)
    ]
