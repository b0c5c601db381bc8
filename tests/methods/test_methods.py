"""Methods as configurations: names, strictness, what is left open, and loading without torch."""

import subprocess
import sys

import pytest

from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.methods import room
from tunewright.methods.lora import LoRA

NEEDED = {"peft": {"type": "LOHA"}, "stack": {"parts": ["prompt_tuning", "lora"]}}
"""What the methods that have no defaults for everything must be told."""


def test_the_room_lists_its_files():
    assert {"lora", "full", "head", "selective"} <= set(room.names())
    assert room.make("lora") == room.make({"name": "lora"}) == LoRA()


@pytest.mark.parametrize("name", room.names())
def test_what_is_dumped_makes_the_same_method(name: str):
    method = room.make({"name": name, **NEEDED.get(name, {})})
    assert room.make(room.dump(method)) == method
    assert room.name_of(method) == name
    for part in ("Source:", "Cost:", "Use when", "Avoid when", "Raises"):
        assert part in type(method).__doc__


def test_misspelt_names_are_found():
    with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
        room.make("lroa")
    with pytest.raises(ConfigurationError, match=r"rnk.*Did you mean 'rank'"):
        room.make({"name": "lora", "rnk": 4})
    with pytest.raises(ConfigurationError, match="rank"):
        room.make({"name": "lora", "rank": 0})


@pytest.mark.parametrize(("rows", "rank"), [(1, 8), (199, 8), (200, 16), (9_999, 16), (10_000, 32)])
def test_the_rank_follows_the_rows(rows: int, rank: int):
    method, reasons = LoRA().settled(rows)
    assert method.width == rank
    assert reasons == {"method.rank": f"{rank}: {rows} training rows"}
    assert LoRA(rank=3).settled(rows) == (LoRA(rank=3), {})


def test_scale():
    assert LoRA(rank=4).scale == 2
    assert LoRA(rank=4, alpha=4).scale == 1
    assert LoRA(rank=4, alpha=8, rank_stabilized=True).scale == 4
    assert LoRA(rank=16).scale == LoRA(rank=16, rank_stabilized=True).scale == 2
    assert LoRA(rank=64).scale == 0.5
    assert LoRA(rank=64, rank_stabilized=True).scale == 1
    assert LoRA(targets="linear").targets == ("linear",)


def test_settings_load_no_torch():
    code = (
        f"import sys; from tunewright.methods import room; needed = {NEEDED!r};"
        "[room.make({'name': n, **needed.get(n, {})}) for n in room.names()];"
        "assert not {'torch', 'peft'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == ""
