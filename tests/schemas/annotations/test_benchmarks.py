"""Every published layout is found by itself and read as it was meant."""

from pathlib import Path

import pytest
from helpers.published_rows import PUBLISHED, Published, write_published

from schemas.annotations.reader import format_found, read_questions
from schemas.questions import VideoQuestion

each_layout = pytest.mark.parametrize(
    "row", PUBLISHED, ids=[f"{row.name}-{row.form}-{n}" for n, row in enumerate(PUBLISHED)]
)


@each_layout
def test_a_row_as_published_is_found_and_read(tmp_path: Path, row: Published) -> None:
    path = write_published(tmp_path, row)
    assert format_found(path) == row.name
    (found,) = read_questions(path)
    assert isinstance(found, VideoQuestion), found
    assert (found.problem, found.options) == (row.problem, row.options)
    assert (found.solution, found.problem_type.value) == (row.solution, row.problem_type)
    (ref,) = found.media
    assert (ref.kind, ref.path, ref.span) == ("video", row.path, row.span)
    assert list(read_questions(path, format=row.name)) == [found]
