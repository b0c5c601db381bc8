"""`parquet`, `arrow` and `datasets_folder`: class names, nulls, times, bytes."""

import datetime
import decimal

import pyarrow
import pyarrow.parquet
import pytest

from tunewright.core.errors import DataError
from tunewright.data.sources import Note, Record, records, source_for


def test_values_become_what_json_has(tmp_path):
    values = {
        "when": datetime.datetime(2024, 1, 2, 3, 4),
        "day": datetime.date(2024, 1, 2),
        "price": decimal.Decimal("1.50"),
        "share": float("nan"),
        "nested": [{"a": 1, "b": None}],
        "picture": b"\x00\x01",
    }
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([values]), path)
    note, record = list(records(path))
    assert "picture" in note.message
    assert record.value == {
        "when": "2024-01-02T03:04:00",
        "day": "2024-01-02",
        "price": "1.50",
        "share": None,
        "nested": [{"a": 1, "b": None}],
    }
    assert record.where == f"{path}:row 1"


def test_rows_are_numbered_across_batches(tmp_path):
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [str(i) for i in range(5000)]}), path, row_group_size=700)
    items = list(records(path))
    assert [item.where.rsplit(" ", 1)[1] for item in items] == [
        item.value["text"] and str(int(item.value["text"]) + 1) for item in items
    ]


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=features)
    part.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": part, "validation": part, "extra": part}).save_to_disk(str(tmp_path / "dict"))
    part.to_parquet(str(tmp_path / "f.parquet"))
    return tmp_path


def test_saved_datasets_keep_class_names(saved):
    for name in ("one", "f.parquet", "dict/train"):
        items = list(records(saved / name))
        assert [item.value["label"] for item in items if isinstance(item, Record)] == ["neg", "pos", None]
        assert any(isinstance(item, Note) and "names of their classes" in item.message for item in items)


def test_saved_splits_are_known_by_name(saved):
    source, path = source_for(saved / "dict")
    assert source.splits(path) == {"train": [path / "train"], "validation": [path / "validation"]}
    with pytest.raises(DataError, match="holds several splits; name one"):
        list(records(path))


def test_a_damaged_folder_names_the_file(saved):
    (saved / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state.json: is damaged"):
        list(records(saved / "one"))
