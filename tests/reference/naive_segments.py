"""Segments of the p2r template by a loop over the tokens' bytes."""


def naive_segment_ids(pieces: list[bytes], has_observation: bool) -> list[int]:
    """Perception up to the byte that closes the observation, reasoning from there on."""
    tag = b"</observation>"
    result, before = [], b""
    for piece in pieces:
        is_closed = tag in before
        result.append(2 if is_closed or not has_observation else 1)
        before += piece
    return result
