"""Streaming records: equal to the whole file at once, and honest about where a file breaks."""

import gzip
import json
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.annotations import records as record_reader
from schemas.annotations.records import BadRecord, Layout, Record, read_records

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def records(tmp_path: Path, content: bytes, layout: Layout = "array") -> list[Record | BadRecord]:
    path = tmp_path / "questions"
    path.write_bytes(content)
    return list(read_records(path, layout))


def values(found: list[Record | BadRecord]) -> list[object]:
    return [record.value for record in found if isinstance(record, Record)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_values), st.sampled_from([None, 0, 3]), st.booleans(), st.integers(1, 40))
def test_an_array_is_read_as_json_reads_it_wherever_the_chunks_end(
    tmp_path: Path, items: list[object], indent: int | None, ascii: bool, chunk: int
) -> None:
    content = json.dumps(items, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_reader, "_CHUNK_BYTES", chunk)
        found = records(tmp_path, content)
    assert values(found) == json.loads(content)
    assert len(found) == len(items)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), json_values), st.integers(1, 40))
def test_an_object_is_read_member_by_member(
    tmp_path: Path, members: dict[str, object], chunk: int
) -> None:
    content = json.dumps(members, indent=1).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_reader, "_CHUNK_BYTES", chunk)
        found = records(tmp_path, content, "object")
    assert {r.key: r.value for r in found if isinstance(r, Record)} == json.loads(content)


def test_every_record_knows_its_line(tmp_path: Path) -> None:
    content = b'[\n {"a":\n  1},\n\n {"a": 2}, {"a": 3}\n]\n'
    found = records(tmp_path, content)
    assert [(r.line, r.value) for r in found if isinstance(r, Record)] == [
        (2, {"a": 1}),
        (5, {"a": 2}),
        (5, {"a": 3}),
    ]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b'[{"a":1},\n{"a":2},\n{"a":', 3, "Expecting value"),
        (b'[{"a":1},\n{"a":2},\n{"a":"cut', 3, "Unterminated string"),
        (b'[{"a":1},\n{"a":2}', 2, "ends in line 2 without ',' or ']'"),
        (b'[{"a":1},\n{"a":2},', 2, "ends in line 2 without"),
        (b'[{"a":1},\n{"a":2},\n{"a":x},{"a":3}]', 3, "Expecting value"),
        (b'[{"a":1},\n{"a":2}\n{"a":3}]', 3, "found '{'"),
        (b'[{"a":1},\n{"a":2},\n]', 3, "a value after ','"),
        (b'[{"a":1},\n{"a":2}]\nmore', 3, "expected nothing more in line 3, found 'm'"),
        (b'[{"a":1},\n{"a":2},\n' + b"[" * 200_000, 3, "nested too deeply"),
        (b'[{"a":1},\n{"a":2},\n' + b"1" * 5_000 + b"]", 3, "integer"),
    ],
)
def test_a_broken_array_gives_the_rows_before_the_break_and_one_bad_record(
    tmp_path: Path, content: bytes, line: int, reason: str
) -> None:
    found = records(tmp_path, content)
    assert values(found) == [{"a": 1}, {"a": 2}]
    assert len(found) == 3
    bad = found[-1]
    assert isinstance(bad, BadRecord)
    assert bad.line == line
    assert reason in bad.detail
    assert "\n" not in bad.detail


def test_nan_as_python_writes_it_does_not_break_the_file(tmp_path: Path) -> None:
    found = records(tmp_path, json.dumps([{"reward": float("nan")}, {"a": 1}]).encode())
    assert len(values(found)) == 2


def test_bytes_that_are_not_utf8_spoil_one_row_only(tmp_path: Path) -> None:
    assert values(records(tmp_path, b'[{"a":"\xff"},{"a":2}]')) == [{"a": "\udcff"}, {"a": 2}]
    lines = records(tmp_path, b'{"a":1}\n{"a":"\xff"}\n{"a":2}\n', "lines")
    assert values(lines) == [{"a": 1}, {"a": 2}]
    assert lines[1] == BadRecord(2, "not UTF-8: invalid start byte at byte 6")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert values(records(tmp_path, mark + b'[{"a":1}]')) == [{"a": 1}]
    assert values(records(tmp_path, mark + b'{"a":1}\n{"a":2}', "lines")) == [{"a": 1}, {"a": 2}]
    assert values(records(tmp_path, mark + b"a,b\n1,2\n", "csv")) == [{"a": "1", "b": "2"}]


def test_each_bad_line_is_reported_with_its_number_and_the_rest_goes_on(tmp_path: Path) -> None:
    content = b'{"a":1}\n\nnot json\n{"a":2}\r\n{"a":\n' + b"[" * 200_000 + b'\n{"a":3}'
    found = records(tmp_path, content, "lines")
    assert values(found) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [r.line for r in found] == [1, 3, 4, 5, 6, 7]
    bad = [r.detail for r in found if isinstance(r, BadRecord)]
    assert bad[0].startswith("not JSON: Expecting value")
    assert bad[2] == "values are nested too deeply"


def test_an_endless_line_is_one_bad_record(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_reader, "_MAX_RECORD_CHARACTERS", 100)
        found = records(tmp_path, b'{"a":1}\n' + b"x" * 1000 + b'\n{"a":2}\n', "lines")
    assert values(found) == [{"a": 1}, {"a": 2}]
    assert found[1] == BadRecord(2, "a line longer than 100 bytes")


def test_an_endless_record_of_an_array_ends_the_reading(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_reader, "_MAX_RECORD_CHARACTERS", 100)
        patch.setattr(record_reader, "_CHUNK_BYTES", 64)
        found = records(tmp_path, b'[{"a":1},{"a":"' + b"x" * 100_000)
    assert values(found) == [{"a": 1}]
    assert isinstance(found[-1], BadRecord)
    assert "one record is longer than" in found[-1].detail


def test_gzip_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    assert values(records(tmp_path, gzip.compress(b'[{"a":1}]'))) == [{"a": 1}]
    path = tmp_path / "plain.json.gz"
    path.write_bytes(b'[{"a":1}]')
    assert values(list(read_records(path, "array"))) == [{"a": 1}]


@pytest.mark.parametrize("layout", ["array", "lines", "csv"])
def test_a_cut_gzip_file_gives_all_rows_that_can_be_unpacked(
    tmp_path: Path, layout: Layout
) -> None:
    numbers = [str(number * 7919 % 10007) for number in range(40_000)]
    whole = {
        "array": "[" + ",\n".join(f'{{"a":{n}}}' for n in numbers) + "]",
        "lines": "\n".join(f'{{"a":{n}}}' for n in numbers),
        "csv": "a,b\n" + "\n".join(f"{n},x" for n in numbers),
    }[layout]
    packed = gzip.compress(whole.encode())
    found = records(tmp_path, packed[: len(packed) // 2], layout)
    assert isinstance(found[-1], BadRecord)
    assert "end-of-stream" in found[-1].detail
    assert not any(isinstance(record, BadRecord) for record in found[:-1])
    assert 15_000 < len(found) < 25_000  # half of the packed bytes is about half of the rows


def test_csv_rows_keep_quoted_line_breaks_and_report_wrong_column_counts(tmp_path: Path) -> None:
    content = b'a,b\n"x\ny",1\nonly\n2,3,4\n\n5,6\n'
    found = records(tmp_path, content, "csv")
    assert values(found) == [{"a": "x\ny", "b": "1"}, {"a": "5", "b": "6"}]
    assert [r for r in found if isinstance(r, BadRecord)] == [
        BadRecord(4, "1 columns where the header has 2"),
        BadRecord(5, "3 columns where the header has 2"),
    ]


def test_memory_stays_constant_while_an_array_streams(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    row = json.dumps({"problem": "x" * 1000})
    with path.open("w") as file:
        file.write("[" + ",".join([row] * 1000))
        for _ in range(99):
            file.write("," + ",".join([row] * 1000))
        file.write("]")
    for _ in read_records(path, "array"):
        break
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in read_records(path, "array")) == 100_000
    grown_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kilobytes < 20_000  # the file has 100 MB


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("lines", '{"a": 1, "a": 2}\n{"a": 3}\n{"a": 4, "a": 4}'),
        ("array", '[{"a": 1, "a": 2},\n{"a": 3},\n{"a": 4, "a": 4}]'),
        ("lines", '{"a": {"b": 1, "c": 0, "b": 2}}\n{"a": 3}\n{"a": 4}'),
    ],
)
def test_a_field_that_stands_twice_costs_its_record(
    tmp_path: Path, layout: Layout, text: str
) -> None:
    path = tmp_path / "twice"
    path.write_text(text)
    bad, *good = read_records(path, layout)
    assert isinstance(bad, BadRecord)
    assert bad.line == 1
    assert "stands there twice, with different values" in bad.detail
    assert good == [Record({"a": 3}, 2), Record({"a": 4}, 3)]


def test_a_column_that_stands_twice_ends_a_table(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("a,b,a\n1,2,3\n")
    assert list(read_records(path, "csv")) == [
        BadRecord(1, "the header has the column 'a' twice; nothing after this could be read")
    ]
    path.write_text("a,,\n1,2,3\n")  # spreadsheets add columns without a name
    assert [type(one) for one in read_records(path, "csv")] == [Record]


@pytest.mark.parametrize(
    ("broken", "last"),
    [
        ('"x,1', "y,2\n"),
        ('"x,1', 'y,"2"\n'),
        ('x,"1', "y,2\n"),
        ('"x"z,1', "y,2\n"),
        ('x,"1', 'y,"2'),
    ],
)
def test_a_quote_that_is_not_closed_costs_its_own_row_only(
    tmp_path: Path, broken: str, last: str
) -> None:
    path = tmp_path / "quote.csv"
    path.write_text(f"a,b\n{broken}\nw,3\n{last}")
    found = list(read_records(path, "csv"))
    assert [one.line for one in found] == [2, 3, 4]
    assert isinstance(found[0], BadRecord)
    assert found[1] == Record({"a": "w", "b": "3"}, 3)
    assert isinstance(found[2], BadRecord) == (last == 'y,"2')


def test_a_cell_of_several_lines_stays_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text('a,b\n"x\ny",1\n"p\nq\nr",1,2\nz,3\n')
    first, bad, last = read_records(path, "csv")
    assert first == Record({"a": "x\ny", "b": "1"}, 2)
    assert bad == BadRecord(4, "3 columns where the header has 2")
    assert last == Record({"a": "z", "b": "3"}, 7)
