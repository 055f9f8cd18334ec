"""Which completions of a micro-batch are forwarded together."""

from hypothesis import given
from hypothesis import strategies as st

from train.trainers.micro_batches import Pass, passes_of


def rows_of(passes: tuple[Pass, ...]) -> list[tuple[int, int]]:
    return [(each.rows.start, each.rows.stop) for each in passes]


def test_by_default_all_go_together() -> None:
    (own,) = passes_of([3, 3], None)
    assert own == Pass(slice(0, 6), ((0, slice(0, 3)), (1, slice(0, 3))))
    assert passes_of([3, 3], 6) == passes_of([3, 3], 100) == (own,)


def test_whole_groups_stay_together_where_they_fit() -> None:
    """Two groups of three fit into seven, a third does not."""
    passes = passes_of([3, 3, 3], 7)
    assert rows_of(passes) == [(0, 6), (6, 9)]
    assert passes[1].parts == ((2, slice(0, 3)),)


def test_a_group_is_cut_into_parts_of_almost_one_size() -> None:
    """Eight by three at most: three passes, not two full ones and a rest that may be one."""
    passes = passes_of([8, 8], 3)
    assert rows_of(passes) == [(0, 2), (2, 5), (5, 8), (8, 10), (10, 13), (13, 16)]
    assert passes[4].parts == ((1, slice(2, 5)),)
    assert rows_of(passes_of([4], 1)) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 130))
def test_every_completion_is_forwarded_once(size: int, groups: int, at_most: int) -> None:
    passes = passes_of([size] * groups, at_most)
    seen = [
        (number, row)
        for each in passes
        for number, part in each.parts
        for row in range(part.start, part.stop)
    ]
    assert seen == [(number, row) for number in range(groups) for row in range(size)]
    for each in passes:
        count = sum(part.stop - part.start for _, part in each.parts)
        assert count == each.rows.stop - each.rows.start <= at_most
    assert [each.rows.start for each in passes] == [0, *(each.rows.stop for each in passes[:-1])]
