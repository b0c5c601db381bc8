"""Folders, and names on the hub."""

import socket

import pytest

from tunewright.core.errors import DataError
from tunewright.data.sources import Record, hub, records, source_for


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "' + name + '"}\n')


def test_files_named_like_splits_are_the_splits(tmp_path):
    touch(
        tmp_path,
        "train-00000-of-00002.jsonl",
        "train-00001-of-00002.jsonl",
        "data/dev.jsonl",
        "test.jsonl",
        "validation_ood.jsonl",
        ".hidden.jsonl",
    )
    source, path = source_for(tmp_path)
    assert source.splits(path) == {
        "train": [tmp_path / "train-00000-of-00002.jsonl", tmp_path / "train-00001-of-00002.jsonl"],
        "validation": [tmp_path / "data/dev.jsonl"],
        "test": [tmp_path / "test.jsonl"],
    }


def test_other_files_are_one_data_set_in_the_order_of_their_names(tmp_path):
    touch(tmp_path, "b.jsonl", "a/z.jsonl", "a.jsonl", "README.txt", "notes.md")
    source, path = source_for(tmp_path)
    assert source.splits(path) == {}
    assert [item.value["text"] for item in records(tmp_path) if isinstance(item, Record)] == ["a/z.jsonl", "a.jsonl", "b.jsonl"]


def test_a_folder_without_data(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"holds no data file \(it holds notes.md\). Allowed: .arrow, .bio, .conll"):
        list(records(tmp_path))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import datasets.config

    def refuse(*_args, **_kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("place", ["owner/name", "hub:owner/name", "owner/name/english", "owner/name[train]"])
def test_the_hub_without_a_network_is_told_at_once(offline, place):
    with pytest.raises(DataError, match=r"no data set of that name could be loaded from the hub .*Network is unreachable"):
        list(records(place))


def test_a_wrong_name_is_told_without_the_network(offline):
    with pytest.raises(DataError, match=r"is not the name of a data set on the hub. Write hub:owner/name"):
        list(records("hub:a b"))


@pytest.mark.parametrize("place", ["missing.jsonl", "data/missing.csv", "./owner/name", "/owner/name"])
def test_mistyped_paths_are_not_looked_up(offline, place):
    with pytest.raises(DataError, match="there is no such file\\.") as caught:
        list(records(place))
    assert "hub" not in str(caught.value)


def test_a_data_set_of_the_hub_is_read_like_any_other(offline, monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    asked = []

    def load(name, configuration, split):
        asked.append((name, configuration, split))
        both = datasets.DatasetDict({"train": part, "test": part})
        return both[split] if split else both

    monkeypatch.setattr(hub, "_check_reachable", lambda *_: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    source, path = source_for("owner/name/english")
    splits = source.splits(path)
    assert sorted(splits) == ["test", "train"]
    rows = [item for item in records(splits["test"][0]) if isinstance(item, Record)]
    assert [row.value for row in rows] == [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}]
    assert rows[0].where == "owner/name/english[test]:row 1"
    assert asked[-1] == ("owner/name", "english", "test")
    with pytest.raises(DataError, match=r"has several splits; name one. Allowed: owner/name/english\[train\]"):
        list(records("owner/name/english"))
