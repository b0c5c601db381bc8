"""States on disk: what comes back is what was put in, and nothing that is damaged, foreign or half written is ever used."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import StorageError
from tunewright.engine.prefix import store
from tunewright.engine.prefix.key import name_of
from tunewright.engine.prefix.store import HiddenCache, default_budget, size_of

KEY = {"base": "a", "cut": 1, "dtype": "float32", "width": 4}
LENGTHS = (3, 1, 5)


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def states(seed: int = 0, count: int = sum(LENGTHS), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def filled(folder: Path, **other) -> HiddenCache:
    cache = HiddenCache(folder, {**KEY, **other})
    cache.add([digest(1), digest(2), digest(3)], LENGTHS, states())
    return cache


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_was_added_is_read_in_any_order(tmp_path: Path, dtype: str):
    kept = states(dtype=getattr(torch, dtype))
    cache = HiddenCache(tmp_path, {**KEY, "dtype": dtype})
    assert cache.add([digest(1), digest(2), digest(3)], LENGTHS, kept) == 3
    for again in (cache, HiddenCache(tmp_path, {**KEY, "dtype": dtype})):
        assert len(again) == 3
        found = again.read([digest(3), digest(1), digest(2), digest(1)])
        assert found is not None
        assert found.dtype == kept.dtype
        assert torch.equal(found, torch.cat([kept[4:], kept[:3], kept[3:4], kept[:3]]))
        found.zero_()  # memory of its own: the file is not written through it
        assert torch.equal(again.read([digest(1)]), kept[:3])


def test_a_missing_segment_is_missing(tmp_path: Path):
    cache = filled(tmp_path)
    assert cache.read([digest(1), digest(9)]) is None
    assert cache.missing([digest(1), digest(9)]) == {digest(9)}
    assert HiddenCache(tmp_path / "other", KEY).read([digest(1)]) is None


def test_only_what_is_new_is_added_and_once(tmp_path: Path):
    cache = filled(tmp_path)
    new = states(1, 5)
    assert cache.add([digest(2), digest(4), digest(4)], (1, 2, 2), new) == 1
    assert torch.equal(cache.read([digest(2)]), states()[3:4])
    assert torch.equal(cache.read([digest(4)]), new[3:])
    assert cache.add([digest(2)], (1,), new[:1]) == 0


@pytest.mark.parametrize(("name", "value"), [("base", "b"), ("cut", 2), ("width", 2), ("dtype", "bfloat16")])
def test_another_key_is_another_place(tmp_path: Path, name: str, value):
    filled(tmp_path)
    other = HiddenCache(tmp_path, {**KEY, name: value})
    assert len(other) == 0
    assert other.discarded == 0
    assert len(HiddenCache(tmp_path, KEY)) == 3


def file_of(folder: Path, name: str) -> Path:
    return folder / name_of({**KEY, "format": store.FORMAT}) / name


def changed(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the states": lambda folder: changed(file_of(folder, store.STATES), 5),
    "the last bit of the states": lambda folder: changed(file_of(folder, store.STATES), -1),
    "a digest": lambda folder: changed(file_of(folder, store.INDEX), 3),
    "a place": lambda folder: changed(file_of(folder, store.INDEX), 36 + 17),
    "shorter states": lambda folder: os.truncate(file_of(folder, store.STATES), 100),
    "no states": lambda folder: file_of(folder, store.STATES).unlink(),
    "no entries": lambda folder: file_of(folder, store.INDEX).unlink(),
    "another header": lambda folder: file_of(folder, store.HEADER).write_text('{"base": "b"}'),
    "half a header": lambda folder: file_of(folder, store.HEADER).write_text('{"base": '),
    "foreign entries": lambda folder: file_of(folder, store.INDEX).write_bytes(b"foreign content that is no index at all"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_thrown_away_and_never_read(tmp_path: Path, damage: str):
    filled(tmp_path).close()
    DAMAGE[damage](tmp_path)
    cache = HiddenCache(tmp_path, KEY)
    names = [digest(1), digest(2), digest(3)]
    assert cache.read(names) is None
    assert cache.discarded == 1
    assert len(cache) == 0
    fresh = states(7)
    assert cache.add(names, LENGTHS, fresh) == 3
    assert torch.equal(cache.read(names), fresh)
    assert torch.equal(HiddenCache(tmp_path, KEY).read(names), fresh)


@pytest.mark.parametrize("torn", range(1, 36, 7))
def test_a_crash_while_writing_an_entry_loses_that_entry_only(tmp_path: Path, torn: int):
    filled(tmp_path).close()
    index = file_of(tmp_path, store.INDEX)
    os.truncate(index, index.stat().st_size - torn)
    cache = HiddenCache(tmp_path, KEY)
    assert cache.discarded == 0
    assert torch.equal(cache.read([digest(1), digest(2)]), states()[:4])
    assert cache.read([digest(3)]) is None
    assert cache.add([digest(3), digest(4)], (5, 2), states(1, 7)) == 2  # over what the crash left
    for again in (cache, HiddenCache(tmp_path, KEY)):
        assert torch.equal(
            again.read([digest(4), digest(1), digest(3)]), torch.cat([states(1, 7)[5:], states()[:3], states(1, 7)[:5]])
        )


def test_a_crash_before_the_entry_loses_the_rows_only(tmp_path: Path):
    filled(tmp_path).close()
    with file_of(tmp_path, store.STATES).open("ab") as file:
        file.write(b"half of a ro")
    cache = HiddenCache(tmp_path, KEY)
    assert cache.add([digest(4)], (2,), states(1, 2)) == 1
    assert torch.equal(cache.read([digest(3), digest(4)]), torch.cat([states()[4:], states(1, 2)]))


def test_two_writers_see_each_others_states(tmp_path: Path):
    one, other = HiddenCache(tmp_path, KEY), HiddenCache(tmp_path, KEY)
    for number in range(6):
        writer, reader = (one, other) if number % 2 else (other, one)
        assert writer.add([digest(number)], (3,), states(number, 3)) == 1
        assert torch.equal(reader.read([digest(number)]), states(number, 3))
    assert one.add([digest(0)], (3,), states(9, 3)) == 0
    names = [digest(number) for number in range(6)]
    assert torch.equal(one.read(names), torch.cat([states(number, 3) for number in range(6)]))


def test_what_one_throws_away_the_other_stops_adding_to(tmp_path: Path):
    one, other = filled(tmp_path), HiddenCache(tmp_path, KEY)
    kept = other.read([digest(1)])
    one.discard()
    assert torch.equal(other.read([digest(1)]), kept)  # its map of the old file still stands
    other.add([digest(7)], (2,), states(2, 2))
    assert torch.equal(one.read([digest(7)]), states(2, 2))
    assert other.read([digest(1)]) is None
    assert one.discarded == 1
    assert other.discarded == 0


def test_processes_write_at_the_same_time(tmp_path: Path):
    code = (
        "import sys, torch; from pathlib import Path; from tunewright.engine.prefix.store import HiddenCache\n"
        f"cache = HiddenCache(Path({str(tmp_path)!r}), {KEY!r})\n"
        "first = int(sys.argv[1])\n"
        "for number in range(first, first + 60):\n"
        "    cache.add([number.to_bytes(16, 'big')], (3,), torch.full((3, 4), float(number)))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(first)]) for first in (0, 40)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    cache = HiddenCache(tmp_path, KEY)
    assert len(cache) == 100
    found = cache.read([digest(number) for number in range(100)])
    assert cache.discarded == 0
    assert torch.equal(found, torch.arange(100.0).repeat_interleave(3)[:, None].expand(-1, 4))


def test_a_full_budget_ends_adding_and_keeps_what_there_is(tmp_path: Path):
    cache = HiddenCache(tmp_path, KEY, budget=300)
    assert cache.add([digest(1)], (9,), states()) == 1
    assert cache.add([digest(2)], (9,), states(1)) == 0
    assert cache.full
    assert cache.add([digest(3)], (1,), states(1)[:1]) == 0
    assert torch.equal(cache.read([digest(1)]), states())
    assert size_of(tmp_path) <= 300


def test_unused_files_of_other_keys_make_room_the_oldest_first(tmp_path: Path):
    for number, base in enumerate(("old", "older", "used")):
        cache = filled(tmp_path, base=base)
        if base != "used":
            cache.close()
            os.utime(cache.path / store.IN_USE, (0, 100 - number))
        else:
            used = cache
    bystander = tmp_path / "holiday.jpg"
    bystander.write_bytes(b"x" * 1000)
    one = used.bytes
    cache = HiddenCache(tmp_path, KEY, budget=3 * one + 300)
    for seed in (1, 2):
        cache.add([digest(10 + seed)], (9,), states(seed))
    assert [len(HiddenCache(tmp_path, {**KEY, "base": base})) for base in ("old", "older", "used")] == [3, 0, 3]
    assert not cache.full
    tight = HiddenCache(tmp_path, {**KEY, "base": "last"}, budget=one)
    cache.close()
    assert tight.add([digest(1)], (9,), states()) == 0  # what is in use is never removed
    assert torch.equal(used.read([digest(1)]), states()[:3])
    assert bystander.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be kept there"):
        HiddenCache(tmp_path / "file", KEY)


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = filled(tmp_path)
    monkeypatch.setattr(store, "_record", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert cache.add([digest(4)], (2,), states(1, 2)) == 0
    assert cache.full
    assert torch.equal(cache.read([digest(1)]), states()[:3])


def test_the_default_budget_is_a_share_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4000})())
    assert default_budget(tmp_path / "not" / "there") == 1000
    cache = filled(tmp_path)
    assert default_budget(tmp_path) == (4000 + cache.bytes) // 4
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**15})())
    assert default_budget(tmp_path) == store.LARGEST_DEFAULT


def test_closing_frees_the_folder(tmp_path: Path):
    cache = filled(tmp_path)
    handle = os.open(cache.path / store.IN_USE, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    cache.close()
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
