"""Log-probs of tokens in chunks, and what of them is kept."""

import torch
from helpers.tensor_memory import TensorMemory

from train.modeling.logprobs import token_logprobs


def test_logits_come_in_chunks() -> None:
    """64 tokens of a head with 5,000 entries, 4 at a time, forward and backward."""
    draw = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(4, 5000, bias=False)
    hidden = torch.randn(64, 4, generator=draw, requires_grad=True)
    tokens = torch.randint(5000, (64,), generator=draw)
    factors = torch.linspace(-1, 2, 64)
    results, largest, kept = [], [], []
    for logits_at_once in (4 * 5000, 64 * 5000):
        with TensorMemory(head.weight, hidden) as memory:
            scores = token_logprobs(
                head, hidden, tokens, entropy_gradient=True, logits_at_once=logits_at_once
            )
            loss = (factors * (scores.logprobs + scores.entropies)).sum()
            gradients = torch.autograd.grad(loss, [hidden, head.weight])
            results.append([scores.logprobs, scores.log_normalisers, *gradients])
            kept.append(scores.all_logprobs)
        largest.append(memory.largest_bytes)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(results[0][1], head(hidden).logsumexp(-1).detach())
    assert largest == [4 * 4 * 5000, 4 * 64 * 5000]
    assert kept[0] is None
    assert kept[1].equal(head(hidden).log_softmax(-1))
    with torch.no_grad():  # no backward pass will keep them
        assert token_logprobs(head, hidden, tokens).all_logprobs is None
