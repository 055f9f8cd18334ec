"""The one door of this room to transformers, opened when a model is made and not before."""

from typing import Any


def transformers_library() -> Any:
    """The package."""
    import transformers

    return transformers
