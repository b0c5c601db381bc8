"""What is measured is remembered for this machine and this shape, and a bad file never matters."""

import json
from pathlib import Path

import pytest
import torch

from tunewright.engine import measured
from tunewright.engine.measured import FILE, choose_threads, fastest, measured_layer, remembered

OF = {"what": "test", "width": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / FILE


def never() -> float:
    pytest.fail("measured although it is known")


def test_what_was_measured_is_not_measured_again(cache: Path):
    assert remembered(OF, lambda: 1.5) == 1.5
    assert remembered(dict(reversed(OF.items())), never) == 1.5
    assert remembered({**OF, "width": 9}, lambda: 2.5) == 2.5
    assert len(json.loads(cache.read_text())["measured"]) == 2


@pytest.mark.parametrize("change", ["processor", "cores"])
def test_another_machine_is_measured_anew(change: str, monkeypatch: pytest.MonkeyPatch):
    remembered(OF, lambda: 1.0)
    here = measured.machine()
    monkeypatch.setattr(measured, "machine", lambda: {**here, change: "another"})
    assert remembered(OF, lambda: 2.0) == 2.0


def test_another_version_is_measured_anew(monkeypatch: pytest.MonkeyPatch):
    remembered(OF, lambda: 1.0)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert remembered(OF, lambda: 2.0) == 2.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "measured": []}',
        b'{"format": 2, "measured": {}}',
        b'{"format": 1, "measured": {"KEY": "fast"}}',
        b'{"format": 1, "measured": {"KEY": true}}',
        b'{"format": 1, "measured": {"KEY": null}}',
        b'{"format": 1, "measured": {"KEY": NaN}}',
    ],
)
def test_a_damaged_or_foreign_file_is_passed_over_and_written_anew(content: bytes, cache: Path):
    cache.parent.mkdir()
    cache.write_bytes(content.replace(b"KEY", measured._key(OF).encode()))
    assert remembered(OF, lambda: 3.0) == 3.0
    assert remembered(OF, never) == 3.0


def test_a_folder_in_its_place_costs_nothing(cache: Path):
    cache.mkdir(parents=True)
    assert remembered(OF, lambda: 4.0) == 4.0
    assert cache.is_dir()


def test_a_cache_that_cannot_be_written_costs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "file"))
    assert remembered(OF, lambda: 5.0) == 5.0


def test_the_file_does_not_grow_for_ever(cache: Path):
    for width in range(measured.KEPT + 6):
        remembered({"width": width}, lambda: 1.0)
    assert len(json.loads(cache.read_text())["measured"]) == measured.KEPT
    remembered({"width": measured.KEPT}, never)  # the latest stay


def test_the_quickest_call_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0.0, 5.0, 5.0, 7.0, 7.0, 11.0])
    monkeypatch.setattr(measured.time, "perf_counter", lambda: next(ticks))
    calls = []
    assert fastest(lambda: calls.append(1), seconds=6.0) == 2.0
    assert len(calls) == 3


def test_a_layer_is_measured_and_the_threads_are_put_back():
    before = torch.get_num_threads()
    assert 0 < measured_layer(32, 1) < 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("seconds", "wanted", "words"),
    [
        ({1: 0.04, 2: 0.02, 4: 0.01}, 4, "takes 10 ms, and 40 ms with 1"),
        ({1: 0.04, 2: 0.0095, 4: 0.01}, 4, "takes 10 ms, and 40 ms with 1"),  # two are not clearly faster
        ({1: 0.04, 2: 0.005, 4: 0.01}, 2, "takes 5 ms, and 10 ms with 4"),
        ({1: 0.005, 2: 0.009, 4: 0.01}, 1, "takes 5 ms, and 10 ms with 4"),
    ],
)
def test_threads_by_measurement(seconds: dict[int, float], wanted: int, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "measured_layer", lambda width, threads: seconds[threads])
    chosen, reason = choose_threads(576, 4)
    assert chosen == wanted
    assert reason.startswith(f"{wanted}: ")
    assert words in reason


@pytest.mark.parametrize(("width", "most", "words"), [(64, 8, "too small for it to matter"), (4096, 1, "there is one core")])
def test_where_there_is_nothing_to_choose_nothing_is_measured(width: int, most: int, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measured, "measured_layer", lambda width, threads: never())
    chosen, reason = choose_threads(width, most)
    assert chosen == most
    assert words in reason
