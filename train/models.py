"""Models: the only file of this room that imports transformers."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def register_attention(name: str, function: Callable[..., Any]) -> None:
    """Make `function` an attention implementation; it is given the masks that SDPA is given."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def sdpa_attention(*args: Any, **options: Any) -> Tensor:
    """transformers' SDPA attention: its output, [B, L, heads, D]."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    output: Tensor = ALL_ATTENTION_FUNCTIONS["sdpa"](*args, **options)[0]
    return output
