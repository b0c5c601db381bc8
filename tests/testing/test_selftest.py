"""The self-test passes on a sound machine, and each of its checks can fail."""

import time

import pytest
import torch

from tunewright.core.narrator import Narrator
from tunewright.engine import batch as layouts
from tunewright.engine import engine as engines
from tunewright.engine.linear import LoRAAdapter
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.sampling.store import Store
from tunewright.testing import selftest
from tunewright.testing.selftest import Check, run

NAMES = ["tune", "reload", "resume", "merge", "peft", "cache", "pack", "accumulate"]


class Heard(Narrator):
    def __init__(self):
        self.said, self.warned, self.done = [], [], []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def progress(self, done, total, facts) -> None:
        self.done.append((done, total))


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def test_everything_holds_here():
    heard, began, threads = Heard(), time.perf_counter(), torch.get_num_threads()
    checks = run(heard)
    assert [check.name for check in checks] == NAMES
    assert failed(checks) == set(), checks
    assert all(check.difference is not None and check.difference < 1e-5 and check.detail for check in checks)
    assert sum(check.seconds for check in checks) <= time.perf_counter() - began < 60
    assert heard.done[-1] == (len(NAMES), len(NAMES))
    assert len(heard.said) == len(NAMES)
    assert heard.warned == []
    assert torch.get_num_threads() == threads


def test_a_sabotaged_engine_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """Five faults at once, each where one check looks."""
    change, collate = LoRAAdapter.change, engines.Engine.collate
    monkeypatch.setattr(LoRAAdapter, "change", lambda self: change(self) * 1.1)
    monkeypatch.setattr(Optimizer, "restore", lambda self, state: None)
    hold = Store.hold
    monkeypatch.setattr(Store, "hold", lambda self, layer, keys, values: hold(self, layer, keys.flip(-1), values))

    def joined(self, trees):
        found = collate(self, trees)
        if found.layout is None or len(trees) < 6:
            return found
        return layouts.replace(found, layout=layouts.Layout((sum(found.layout.lengths),), ((),)))

    monkeypatch.setattr(engines.Engine, "collate", joined)
    heard = Heard()
    checks = run(heard)
    assert failed(checks) >= {"resume", "merge", "cache", "pack", "accumulate"}
    assert "tune" not in failed(checks)
    assert "peft" not in failed(checks)
    assert len(heard.warned) == len(failed(checks))
    for check in checks:
        assert check.passed or check.detail.startswith(("does not hold, apart by", "IndexError", "RuntimeError", "ValueError"))


def test_a_stack_that_raises_gives_checks_and_no_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken(*given, **more):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(selftest, "finetune", broken)
    checks = run(Heard())
    assert [check.name for check in checks] == NAMES
    assert failed(checks) == {"tune", "reload", "resume", "merge", "peft", "cache", "pack"}
    assert checks[0].detail == "RuntimeError: no kernel image is available"
    assert checks[0].difference is None
