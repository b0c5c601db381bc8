"""The attention of a decoding step against plain attention over each row's own keys."""

import pytest
import torch

from tunewright.engine.attention import ForestUnsupportedError
from tunewright.engine.sampling.store import Store, decode_attention, grid_of

HEADS, KEY_HEADS, WIDTH = 6, 2, 4


class Attention(torch.nn.Module):
    """What the function asks of a module."""

    layer_idx, is_causal = 3, True


def plain(query_HD, key_KTD, value_KTD, window, softcap):
    """One row's attention: every head on its own, all keys repeated."""
    key, value = (tensor.repeat_interleave(HEADS // KEY_HEADS, dim=0)[:, -(window or 10**6) :] for tensor in (key_KTD, value_KTD))
    scores = (key @ query_HD[:, :, None])[:, :, 0] * WIDTH**-0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.softmax(1)[:, :, None] * value).sum(1)


@pytest.mark.parametrize("root", [0, 2])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (4, None), (7, 2.0), (40, 0.5)])
def test_a_step_is_plain_attention_of_each_row(root: int, window: int | None, softcap: float | None):
    """Prompts of unequal length, rows that leave in the middle (a prompt with all of its rows), and keys beyond the first room."""
    torch.manual_seed(0)
    lengths = [5, 3, 9]
    store = Store(lengths, root, torch.device("cpu"))
    total = root + sum(length - root for length in lengths)
    key, value = torch.randn(1, KEY_HEADS, total, WIDTH), torch.randn(1, KEY_HEADS, total, WIDTH)
    store.hold(3, key, value)
    starts = [root + sum(lengths[:number]) - root * number for number in range(3)]
    owners = [0, 0, 1, 1, 2, 2]
    store.seat(owners)
    seen = []
    for owner in owners:
        own = slice(starts[owner], starts[owner] + lengths[owner] - root)
        seen.append(tuple(torch.cat([tensor[0, :, :root], tensor[0, :, own]], dim=1) for tensor in (key, value)))
    for step in range(40):
        if step in (3, 20):
            chosen = [0, 2, 3, 4, 5] if step == 3 else [0, 3, 4]
            owners, seen = [owners[row] for row in chosen], [seen[row] for row in chosen]
            store.keep(owners, chosen)
        rows = len(owners)
        query = torch.randn(1, HEADS, rows, WIDTH)
        new = [torch.randn(1, KEY_HEADS, rows, WIDTH) for _ in range(2)]
        store.advance()
        found, _ = decode_attention(Attention(), query, *new, None, sliding_window=window, softcap=softcap, decode=store)
        seen = [
            tuple(torch.cat([before, added[0, :, row : row + 1]], dim=1) for before, added in zip(seen[row], new, strict=True))
            for row in range(rows)
        ]
        wanted = torch.stack([plain(query[0, :, row], *seen[row], window, softcap) for row in range(rows)])
        torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=1e-5)


def test_rows_stand_in_a_grid():
    even, uneven = grid_of([4, 4, 7, 7], torch.device("cpu")), grid_of([1, 2, 2, 2], torch.device("cpu"))
    assert (even.prompts, even.width, even.places_A) == ((4, 7), 2, None)
    assert (uneven.prompts, uneven.width) == ((1, 2), 3)
    assert uneven.places_A.tolist() == [0, 3, 4, 5]
    assert uneven.rows_BN.tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "given", [{"decode": None}, {"attention_mask": torch.ones(1)}, {"s_aux": torch.ones(1)}, {"head_mask": torch.ones(1)}], ids=str
)
def test_what_is_not_computed_is_refused(given: dict):
    tensor = torch.ones(1, 2, 3, 4)
    asked = {"attention_mask": None, "decode": Store([3], 0, torch.device("cpu"))} | given
    with pytest.raises(ForestUnsupportedError):
        decode_attention(Attention(), tensor, tensor, tensor, **asked)


def test_a_module_without_a_layer_number_is_refused():
    tensor, module = torch.ones(1, 2, 3, 4), torch.nn.Identity()
    module.is_causal = True
    with pytest.raises(ForestUnsupportedError):
        decode_attention(module, tensor, tensor, tensor, None, decode=Store([3], 0, torch.device("cpu")))
