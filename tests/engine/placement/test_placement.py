"""One process: nothing is summed, told or divided. And how a process learns who it is."""

from __future__ import annotations

import signal

import pytest
import torch

from tunewright.core.errors import Interrupted
from tunewright.core.surroundings import Process
from tunewright.engine.placement import Placement
from tunewright.engine.placement import group as groups
from tunewright.engine.placement.replicated import BUCKET, _buckets

TWO = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)


def test_alone_everything_is_as_it_was():
    alone, parameter = Placement(), torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    alone.sum_gradients({"w": parameter})
    assert parameter.grad.tolist() == [3.0, 3.0]
    assert alone.leads
    assert alone.tell("x") == "x"
    assert alone.gather("x") == ["x"]
    assert [alone.any(False), alone.any(True)] == [False, True]
    assert alone.sum_numbers([1, 2.5]) == [1.0, 2.5]
    assert not alone.whole({"w": parameter})["w"].requires_grad
    assert alone.within(len) is len


def test_without_a_launcher_there_is_nothing_to_join():
    with groups.joined(lambda: True) as group:
        assert type(group) is Placement
        assert group.process == Process()


@pytest.mark.usefixtures("second_of_two")
def test_whoever_is_asked_to_stop_does_not_wait_for_the_others():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="before the processes of the run had met"), groups.joined(lambda: True):
        pass
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("second_of_two")
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "cores", lambda: 9)
    assert groups.own_threads(None) == 4
    assert groups.own_threads(3) == 3
    assert groups.own_threads(8) == 4
    monkeypatch.setattr(groups, "cores", lambda: 1)
    assert groups.own_threads(None) == 1


def test_one_process_takes_the_threads_that_it_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "cores", lambda: 2)
    assert groups.own_threads(None) == 2
    assert groups.own_threads(8) == 8


@pytest.mark.usefixtures("second_of_two")
def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert groups.own_device("cuda") == groups.own_device("cuda:0") == torch.device("cuda", 1)
    assert groups.own_device("cpu") == torch.device("cpu")


def test_an_adapter_travels_in_one_piece_and_a_network_in_a_few(monkeypatch: pytest.MonkeyPatch):
    held = [torch.nn.Parameter(torch.zeros(count, dtype=dtype)) for count, dtype in ((3, None), (4, None), (2, torch.float64))]
    assert [len(bucket) for bucket in _buckets(held)] == [2, 1]
    assert BUCKET >= 2**20
    monkeypatch.setattr("tunewright.engine.placement.replicated.BUCKET", 4)
    assert [len(bucket) for bucket in _buckets(held)] == [1, 1, 1]
    assert list(_buckets([])) == []
