"""Writing files: the old state or the new one at every failing call, and a manifest that finds every change."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tunewright.core import storage
from tunewright.core.errors import StorageError
from tunewright.core.storage import read_json, sha256_of, verify_folder, write_folder, write_json, write_text


def full(*_arguments: object, **_named: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_at(call: int, real):
    """`real`, but with no space left at the call of that number, counted from 0."""
    count = iter(range(10_000))

    def called(*arguments, **named):
        if next(count) == call:
            full()
        return real(*arguments, **named)

    return called


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "inner").mkdir()
    (folder / "inner" / "note.txt").write_text("a note")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    write_folder(tmp_path / "kept", fill, {"step": 7})
    return tmp_path / "kept"


def test_a_text_is_replaced_whole_and_nothing_else_remains(tmp_path):
    write_text(tmp_path / "a.txt", "old and longer")
    write_text(tmp_path / "a.txt", "neu é\n")
    assert contents(tmp_path) == {"a.txt": "neu é\n".encode()}


@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (os, "fsync"), (Path, "write_text"), (os, "open")])
def test_a_full_disk_leaves_the_old_text_and_no_temporary_file(tmp_path, monkeypatch, owner, name):
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write_text(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"a.txt": b"old"}
    assert caught.value.where == str(tmp_path / "a.txt")
    assert caught.value.exit_code == 1


def test_half_a_text_that_fitted_on_the_disk_is_removed(tmp_path, monkeypatch):
    def half(path: Path, text: str, **_: object) -> None:
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        full()

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(StorageError):
        write_text(tmp_path / "a.txt", "new text")
    assert contents(tmp_path) == {"a.txt": b"old"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_no_temporary_file_either(tmp_path, monkeypatch, interruption):
    def interrupted(_path: Path) -> None:
        raise interruption

    monkeypatch.setattr(storage, "sync", interrupted)
    with pytest.raises(interruption):
        write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("place", ["missing/a.txt", "file/a.txt"])
def test_a_place_that_is_no_folder_is_a_storage_error(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        write_text(tmp_path / place, "new")
    assert caught.value.where == str(tmp_path / place)
    assert contents(tmp_path) == {"file": b"x"}


def test_json_keeps_its_order_and_its_letters(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": "é"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.index('"b"') < text.index('"a"')
    assert "é" in text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_never_reach_the_disk(tmp_path, number):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": number})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_folder(tmp_path / "kept", fill, {"loss": number})
    assert contents(tmp_path) == {"x.json": b"1\n"}


@pytest.mark.parametrize("damage", [b'{"a": 1', b"", b"\xff\xfe", b"{'a': 1}", b"[1,]"])
def test_damaged_json_names_the_file(tmp_path, damage):
    (tmp_path / "x.json").write_bytes(damage)
    with pytest.raises(StorageError, match="could not be read") as caught:
        read_json(tmp_path / "x.json")
    assert caught.value.where == str(tmp_path / "x.json")


def test_a_missing_json_names_the_file(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        read_json(tmp_path / "x.json")


def test_the_hash_is_that_of_the_bytes_also_over_many_blocks(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "y").write_bytes(b"a" * 1_000_000 + b"a" * 2_000_000)
    first = sha256_of(tmp_path / "y")
    (tmp_path / "y").write_bytes(b"a" * 2_999_999 + b"b")
    assert sha256_of(tmp_path / "y") != first


def test_a_folder_comes_with_a_manifest_of_every_file(stored):
    manifest = verify_folder(stored)
    assert manifest["step"] == 7
    assert set(manifest["files"]) == {"weights.bin", "inner/note.txt"}
    assert manifest["files"]["weights.bin"] == {"bytes": 256, "sha256": sha256_of(stored / "weights.bin")}
    assert [item.name for item in stored.parent.iterdir()] == ["kept"]


def test_facts_cannot_hide_the_list_of_files(tmp_path):
    write_folder(tmp_path / "kept", fill, {"files": {}})
    assert set(verify_folder(tmp_path / "kept")["files"]) == {"weights.bin", "inner/note.txt"}


def test_files_can_be_read_by_colleagues(tmp_path):
    def locked_up(folder: Path) -> None:
        fill(folder)
        (folder / "weights.bin").chmod(0o600)

    write_folder(tmp_path / "kept", locked_up)
    for name in ("weights.bin", "inner/note.txt"):
        assert (tmp_path / "kept" / name).stat().st_mode & 0o777 == 0o644


CALLS = [(Path, "rename", 0), (Path, "chmod", 0), (Path, "chmod", 1), (os, "open", 0), (Path, "mkdir", 0)]


@pytest.mark.parametrize(("owner", "name", "call"), [*CALLS, *((os, "fsync", call) for call in range(4))])
def test_a_folder_is_not_there_at_all_when_a_call_before_its_renaming_fails(tmp_path, monkeypatch, owner, name, call):
    monkeypatch.setattr(owner, name, failing_at(call, getattr(owner, name)))
    with pytest.raises(StorageError, match="No space left on device") as caught:
        write_folder(tmp_path / "kept", fill)
    assert caught.value.where == str(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_there_whole_when_only_the_last_sync_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing_at(4, os.fsync))
    with pytest.raises(StorageError):
        write_folder(tmp_path / "kept", fill)
    assert set(verify_folder(tmp_path / "kept")["files"]) == {"weights.bin", "inner/note.txt"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError, StorageError])
def test_a_filling_that_fails_leaves_no_trace(tmp_path, interruption):
    def half(folder: Path) -> None:
        fill(folder)
        raise interruption("half way")

    with pytest.raises(interruption):
        write_folder(tmp_path / "kept", half)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_stands_is_not_overwritten(stored):
    before = contents(stored)
    with pytest.raises(StorageError, match="not empty"):
        write_folder(stored, lambda folder: (folder / "other").write_text("x"))
    assert contents(stored) == before
    assert [item.name for item in stored.parent.iterdir()] == ["kept"]


def test_what_an_earlier_crash_left_is_not_mixed_in(tmp_path):
    left = tmp_path / f".tmp-kept-{os.getpid()}"
    left.mkdir()
    (left / "stale.bin").write_bytes(b"x")
    write_folder(tmp_path / "kept", fill)
    assert set(verify_folder(tmp_path / "kept")["files"]) == {"weights.bin", "inner/note.txt"}
    assert not left.exists()


def flipped(folder: Path) -> str:
    data = bytearray((folder / "weights.bin").read_bytes())
    data[100] ^= 1
    (folder / "weights.bin").write_bytes(data)
    return "weights.bin"


def truncated(folder: Path) -> str:
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-1])
    return "weights.bin"


def extra(folder: Path) -> str:
    (folder / "inner" / "more.txt").write_text("")
    return "inner/more.txt"


def missing(folder: Path) -> str:
    (folder / "inner" / "note.txt").unlink()
    return "inner/note.txt"


def renamed(folder: Path) -> str:
    (folder / "weights.bin").rename(folder / "weights.old")
    return "weights.bin"


def second_manifest(folder: Path) -> str:
    (folder / "inner" / "MANIFEST.json").write_text("{}")
    return "inner/MANIFEST.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flipped, "is damaged"),
        (truncated, "is damaged"),
        (extra, "does not belong here"),
        (missing, "is missing"),
        (renamed, "is missing"),
        (second_manifest, "does not belong here"),
    ],
)
def test_every_change_is_found_and_its_file_named(stored, change, said):
    verify_folder(stored)
    name = change(stored)
    with pytest.raises(StorageError, match=said) as caught:
        verify_folder(stored)
    assert caught.value.where == str(stored / name)


def test_a_changed_bit_anywhere_in_the_list_of_files_is_found(stored):
    place = stored / "MANIFEST.json"
    whole = place.read_bytes()
    for index in range(whole.index(b'"files"'), len(whole), 3):
        changed = bytes([whole[index] ^ 1])
        if whole[index : index + 1].isspace() or changed.isspace():
            continue  # layout, which carries nothing
        place.write_bytes(whole[:index] + changed + whole[index + 1 :])
        with pytest.raises(StorageError):
            verify_folder(stored)


@pytest.mark.parametrize("manifest", [[], "x", None, {}, {"files": []}, {"files": {"weights.bin": None, "inner/note.txt": {}}}])
def test_a_manifest_of_another_shape_is_damage(stored, manifest):
    (stored / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match="is damaged"):
        verify_folder(stored)


def test_a_file_that_the_disk_cannot_give_back_is_a_storage_error(stored, monkeypatch):
    def unreadable(_path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(storage, "sha256_of", unreadable)
    with pytest.raises(StorageError, match="could not be read"):
        verify_folder(stored)
