"""`judges.audit run`: ask judges about the drawn rows. The call cache makes it resumable."""

import asyncio

from judges.audits.run_options import RunConfig


def run(config: RunConfig) -> int:
    """Ask all judges; exit status 0, 1 (some calls failed for good) or 3 (stopped, resumable)."""
    from judges.audits.judging import ask_judges

    return asyncio.run(ask_judges(config))
