"""Tables as rows: a few at a time, and a broken file is one sentence."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.parquet_rows import parquet_columns, table_rows

ROWS = [{"a": n, "b": [str(n)]} for n in range(10)]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rows_come_in_order_whatever_is_read_at_once(tmp_path: Path, at_once: int) -> None:
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    with pa.ipc.new_stream(tmp_path / "t.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=4)
    assert list(table_rows(tmp_path / "t.parquet", at_once)) == ROWS
    assert list(table_rows(tmp_path / "t.arrow", at_once)) == ROWS
    assert parquet_columns(tmp_path / "t.parquet") == ["a", "b"]


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("hello")
    with pytest.raises(ValueError, match=f"{name} cannot be read as ") as caught:
        next(table_rows(path, 1))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        parquet_columns(path)
