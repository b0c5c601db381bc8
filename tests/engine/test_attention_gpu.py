"""The ways of GPUs, as far as a machine without one can tell: masks, arguments, and who is chosen."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from tunewright.engine.attention import Options, choose, dense_mask, varlen
from tunewright.engine.attention.flex import block_mask, flex, mask_function
from tunewright.engine.attention.varlen import Packed, kernel_for, packed
from tunewright.engine.layout import Layout

CPU = torch.device("cpu")
ROOTS = Layout((5, 0, 9, 1), ((), (), (), ()))
TREE = Layout((5, 9, 3, 4), ((), (0,), (0, 1), ()))


def random_layout(seed: int, longest: int = 60) -> Layout:
    """Random trees."""
    draw = random.Random(seed)
    paths: list[tuple[int, ...]] = []
    for index in range(9):
        parent = draw.choice([None, *range(index)])
        paths.append(() if parent is None else (*paths[parent], parent))
    return Layout(tuple(draw.randrange(0, longest) for _ in paths), tuple(paths))


def drawn(layout: Layout, heads: int = 4, key_heads: int = 2) -> list[torch.Tensor]:
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(layout.total)
    shapes = [(1, layout.total, count, 16) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator).transpose(1, 2) for shape in shapes]


def oracle(states: list[torch.Tensor], layout: Layout, options: Options) -> torch.Tensor:
    """Plain attention under the dense mask."""
    query, key, value = states
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) * options.scale
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    seen = dense_mask(layout, options.causal, options.window)
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 7])
def test_the_mask_function_is_the_dense_mask(seed: int, causal: bool, window: int | None):
    layout = random_layout(seed)
    seen = mask_function(layout, causal, window, CPU)
    places = torch.arange(layout.total)
    nothing = torch.zeros((), dtype=torch.long)
    found = seen(nothing, nothing, places[:, None], places[None, :])
    assert torch.equal(found, dense_mask(layout, causal, window))


@pytest.mark.parametrize("seed", range(3))
def test_blocks_that_nobody_sees_into_are_left_out(seed: int):
    layout = random_layout(seed, 200)
    mask = block_mask(layout, True, None, CPU)
    assert block_mask(layout, True, None, CPU) is mask
    size = 128
    blocks = -(-layout.total // size)
    dense = torch.zeros((blocks * size, blocks * size), dtype=torch.bool)
    dense[: layout.total, : layout.total] = dense_mask(layout)
    wanted = dense.view(blocks, size, blocks, size).any(3).any(1)
    assert torch.equal(mask.to_dense()[0, 0].bool(), wanted)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "options",
    [
        Options(True, 0.25),
        Options(False, 0.3),
        Options(True, 0.25, 20),
        Options(True, 0.25, None, 2.0),
        Options(False, 0.25, 9, 1.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_flex_attention_is_the_dense_mask(seed: int, options: Options):
    layout = random_layout(seed)
    states = drawn(layout)
    found = flex(*states, layout, options)
    assert found.is_contiguous()
    torch.testing.assert_close(found, oracle(states, layout, options), atol=2e-6, rtol=1e-5)


def test_flex_attention_refuses_to_drop_weights():
    with pytest.raises(ValueError, match="cannot drop"):
        flex(*drawn(TREE), TREE, Options(True, 1.0, dropout=0.1))


def segment_by_segment(given: Packed) -> torch.Tensor:
    """What a kernel for packed sequences computes, from its arguments alone."""
    bounds = given.bounds.tolist()
    outputs = []
    for start, stop in pairwise(bounds):
        assert stop - start <= given.longest
        query, key, value = (tensor[start:stop].transpose(0, 1) for tensor in (given.query_THD, given.key_TKD, given.value_TKD))
        key, value = (tensor.repeat_interleave(len(query) // len(key), 0) for tensor in (key, value))
        places = torch.arange(stop - start)
        apart = places[:, None] - places[None, :]
        left, right = given.window
        seen = ((left < 0) | (apart <= left)) & ((right < 0) | (apart >= -right))
        scores = (query @ key.transpose(1, 2) * given.options.scale).masked_fill(~seen, float("-inf"))
        outputs.append((scores.softmax(-1) @ value).transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize(
    "options", [Options(True, 0.25), Options(True, 0.25, 4), Options(False, 0.3), Options(False, 0.3, 3)], ids=str
)
def test_a_kernel_for_packed_sequences_is_given_the_right_arguments(monkeypatch, options: Options):
    monkeypatch.setattr(varlen, "kernel_for", lambda options: segment_by_segment)
    states = drawn(ROOTS)
    torch.testing.assert_close(packed(*states, ROOTS, options), oracle(states, ROOTS, options), atol=2e-6, rtol=1e-5)


def test_a_kernel_for_packed_sequences_takes_no_parents(monkeypatch):
    monkeypatch.setattr(varlen, "kernel_for", lambda options: segment_by_segment)
    with pytest.raises(ValueError, match="without parents"):
        packed(*drawn(TREE), TREE, Options(True, 1.0))


def test_the_kernel_follows_what_is_installed(monkeypatch):
    plain, capped, dropped = Options(True, 1.0), Options(True, 1.0, softcap=2.0), Options(True, 1.0, dropout=0.1)
    monkeypatch.setattr(varlen, "_installed", lambda module: module == "flash_attn")
    assert kernel_for(plain) is kernel_for(capped) is kernel_for(dropped) is varlen._flash_attn
    monkeypatch.setattr(varlen, "_installed", lambda module: module.startswith("torch"))
    assert kernel_for(plain) is varlen._torch
    assert kernel_for(capped) is kernel_for(dropped) is None
    monkeypatch.setattr(varlen, "_installed", lambda module: False)
    assert kernel_for(plain) is None


@pytest.mark.parametrize(
    ("device", "dtype", "width", "layout", "options", "way", "reason"),
    [
        ("cpu", torch.float32, 64, ROOTS, Options(True, 1.0), "blocks", "on cpu"),
        ("mps", torch.bfloat16, 64, TREE, Options(True, 1.0), "blocks", "on mps"),
        ("cuda", torch.bfloat16, 64, ROOTS, Options(True, 1.0), "packed", "no segment has a parent"),
        ("cuda", torch.bfloat16, 64, TREE, Options(True, 1.0), "flex", "share prefixes"),
        ("cuda", torch.float32, 64, ROOTS, Options(True, 1.0), "flex", "precision or width"),
        ("cuda", torch.bfloat16, 288, ROOTS, Options(True, 1.0), "flex", "precision or width"),
        ("cuda", torch.bfloat16, 64, ROOTS, Options(True, 1.0, softcap=2.0), "flex", "compiled block mask"),
        ("cuda", torch.bfloat16, 64, TREE, Options(True, 1.0, dropout=0.1), "blocks", "cannot drop weights"),
        ("cuda", torch.float64, 64, TREE, Options(True, 1.0), "blocks", "float64"),
    ],
)
def test_the_way_is_chosen_by_device_and_by_what_is_asked(monkeypatch, device, dtype, width, layout, options, way, reason):
    monkeypatch.setattr(varlen, "_installed", lambda module: module.startswith("torch"))
    found = choose(device, dtype, width, layout, options)
    assert found.way == way
    assert reason in found.reason
