"""Keys and values of prompts and of what is written behind them, and the attention of a decoding step over both.

A *root* that all prompts begin with, each prompt's own part, and each sample's suffix are three parts of one attention: scores are
computed part by part, brought under one softmax, and read part by part. Nothing is repeated for a sample or for a query head that
shares keys. Rows stand in a grid of prompts and samples; where prompts have unequally many samples left, some places are idle.

Shape suffixes: B prompts, N samples of a prompt, A rows in the batch, K key heads, G query heads of a key head, H = K * G query
heads, D head width, R tokens of the root, P tokens of the longest prompt behind it, W tokens written, S = R + P + W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from tunewright.engine.attention import ForestUnsupportedError, forest_attention
from tunewright.engine.attention.own import keyed
from tunewright.engine.batch import Layout

DECODE = "tunewright_decode"
_GROW = 32  # places for written tokens at first; doubled when they are full


@dataclass(frozen=True)
class Grid:
    """Where rows stand.

    Args:
        prompts: the prompts that are still continued, in order.
        width: N, samples of the prompt that has most of them.
        places_A: the flat place in the grid [B, N] of each row; None where every place is taken in order.
        rows_BN: the row at each place, any row at idle ones; None likewise.
    """

    prompts: tuple[int, ...]
    width: int
    places_A: Tensor | None
    rows_BN: Tensor | None


def grid_of(owners: Sequence[int], device: torch.device) -> Grid:
    """The grid of rows, from the prompt of each; equal ones stand together."""
    prompts = tuple(dict.fromkeys(owners))
    counts = [owners.count(prompt) for prompt in prompts]
    width = max(counts)
    if min(counts) == width:
        return Grid(prompts, width, None, None)
    places, rows, row = [], [], 0
    for number, count in enumerate(counts):
        places += range(number * width, number * width + count)
        rows += [*range(row, row + count), *[row] * (width - count)]
        row += count
    return Grid(prompts, width, torch.tensor(places, device=device), torch.tensor(rows, device=device))


@dataclass
class Kept:
    """One layer's keys and values: of the root [K, R, D], of the prompts [B, K, P, D], written ones [B, K, N, room, D]."""

    root: tuple[Tensor, Tensor] | None
    prompt: tuple[Tensor, Tensor]
    written: tuple[Tensor, Tensor] | None = None


class Store:
    """What attention reads and fills while a group of prompts is decoded.

    Args:
        lengths: tokens of each prompt, the root included.
        root: tokens that all prompts share; 0 for none.
        device: where the network runs.
    """

    def __init__(self, lengths: Sequence[int], root: int, device: torch.device) -> None:
        self.lengths, self.root, self.device = tuple(lengths), root, device
        own = [length - root for length in lengths]
        self.longest = max(own)
        starts = [root + sum(own[:number]) for number in range(len(own))]
        self.layout = Layout((root, *own), ((), *[(0,)] * len(own))) if root else Layout(tuple(own), ((),) * len(own))
        self.lasts_B = torch.tensor([start + length - 1 for start, length in zip(starts, own, strict=True)], device=device)
        # Where each prompt's own tokens stand in the row of the prefill; places behind a shorter one repeat its last token.
        offsets_P = torch.arange(self.longest)
        self._where_BP = torch.stack(
            [start + offsets_P.clamp(max=length - 1) for start, length in zip(starts, own, strict=True)]
        ).to(device)
        self._layers: dict[int, Kept] = {}
        self._step = -1  # tokens written before the one that is being computed; -1 while prompts are read
        self._grid = Grid((), 0, None, None)
        self._masks: dict[int | None, Tensor | None] = {}

    # ---- who is decoded -----------------------------------------------------------------------------------------------------

    def seat(self, owners: Sequence[int]) -> None:
        """Rows stand behind their prompts with nothing written yet.

        Args:
            owners: the prompt of each row, by its number; equal ones stand together, and every prompt is asked for.
        """
        self._grid, self._step = grid_of(owners, self.device), -1
        for kept in self._layers.values():
            kept.written = None

    @property
    def reading(self) -> bool:
        """Whether the pass is one over the prompts."""
        return self._step < 0

    def advance(self) -> None:
        """The next step writes one token behind every row."""
        self._step += 1
        self._masks = {}

    def keep(self, owners: Sequence[int], chosen: Sequence[int]) -> None:
        """Only the rows `chosen` go on.

        Args:
            owners: the prompt of each row that stays.
            chosen: their numbers among the rows so far.
        """
        before, self._grid = self._grid, grid_of(owners, self.device)
        staying = [number for number, prompt in enumerate(before.prompts) if prompt in self._grid.prompts]
        if len(staying) < len(before.prompts):
            chosen_B = torch.tensor(staying, device=self.device)
            for kept in self._layers.values():
                kept.prompt = kept.prompt[0][chosen_B], kept.prompt[1][chosen_B]
        rows_A = torch.tensor(chosen, device=self.device)
        if self._grid.rows_BN is not None:
            rows_A = rows_A[self._grid.rows_BN]
        places = rows_A if before.places_A is None else before.places_A[rows_A]
        shape = (len(self._grid.prompts), self._grid.width)
        for kept in self._layers.values():
            if kept.written is not None:
                key, value = (_moved(tensor, places, shape) for tensor in kept.written)
                kept.written = key, value

    # ---- attention ----------------------------------------------------------------------------------------------------------

    def hold(self, layer: int, key_1KTD: Tensor, value_1KTD: Tensor) -> None:
        """Keep what one layer computed for the prompts.

        Raises:
            ForestUnsupportedError: two places of the network call themselves the same layer.
        """
        if layer in self._layers:
            raise ForestUnsupportedError(f"two attentions call themselves layer {layer}")
        parts = [tensor[0] for tensor in (key_1KTD, value_1KTD)]
        key, value = (part[:, self._where_BP].transpose(0, 1).contiguous() for part in parts)
        root = None
        if self.root:
            root = parts[0][:, : self.root].contiguous(), parts[1][:, : self.root].contiguous()
        self._layers[layer] = Kept(root, (key, value))

    def attend(
        self, layer: int, query_1HAD: Tensor, key_1KAD: Tensor, value_1KAD: Tensor, reach: tuple[float, int | None, float | None]
    ) -> Tensor:
        """One token of every row looks at its prompt and at what was written behind it: [1, A, H, D].

        Args:
            reach: the scale of the scores, the sliding window and the soft cap of the layer.
        """
        scale, window, softcap = reach
        grid, kept = self._grid, self._layers[layer]
        if grid.rows_BN is not None:
            query_1HAD, key_1KAD, value_1KAD = (
                tensor.index_select(2, grid.rows_BN) for tensor in (query_1HAD, key_1KAD, value_1KAD)
            )
        b, n, k, d = len(grid.prompts), grid.width, key_1KAD.shape[1], query_1HAD.shape[3]
        g = query_1HAD.shape[1] // k
        own_key, own_value = self._write(kept, key_1KAD.view(k, b, n, d), value_1KAD.view(k, b, n, -1))
        query = query_1HAD.view(k, g, b, n, d).permute(2, 0, 3, 1, 4).contiguous().mul_(scale)  # [B, K, N, G, D]
        prompt_key, prompt_value = kept.prompt
        shape = (b, k, n, g, -1)
        scores = [
            torch.bmm(query.view(b * k, n * g, d), prompt_key.flatten(0, 1).transpose(1, 2)).view(shape),
            torch.bmm(query.view(b * k * n, g, d), own_key.transpose(1, 2)).view(shape),
        ]
        if kept.root is not None:
            by_head = query.transpose(0, 1).reshape(k, b * n * g, d)
            scores.insert(0, torch.bmm(by_head, kept.root[0].transpose(1, 2)).view(k, b, n, g, -1).transpose(0, 1))
        weights = self._weights(torch.cat(scores, dim=-1), window, softcap).to(prompt_value.dtype)
        read = torch.bmm(
            weights[..., self.root : self.root + self.longest].flatten(2, 3).flatten(0, 1), prompt_value.flatten(0, 1)
        ).view(b * k * n, g, -1)
        read = torch.baddbmm(read, weights[..., self.root + self.longest :].flatten(0, 2), own_value).view(shape)
        if kept.root is not None:
            by_head = weights[..., : self.root].transpose(0, 1).reshape(k, b * n * g, -1)
            read = read + torch.bmm(by_head, kept.root[1]).view(k, b, n, g, -1).transpose(0, 1)
        flat = read.transpose(1, 2).reshape(1, b * n, k * g, -1)
        return flat if grid.places_A is None else flat.index_select(1, grid.places_A)

    def _write(self, kept: Kept, key_KBND: Tensor, value_KBND: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new keys and values behind the written ones; both are returned as [B * K * N, W, D]."""
        step = self._step
        if kept.written is None or step == kept.written[0].shape[3]:
            old = (None, None) if kept.written is None else kept.written
            kept.written = _grown(old[0], key_KBND), _grown(old[1], value_KBND)
        for buffer, new in zip(kept.written, (key_KBND, value_KBND), strict=True):
            buffer[:, :, :, step] = new.transpose(0, 1)
        key, value = (buffer.flatten(0, 2)[:, : step + 1] for buffer in kept.written)
        return key, value

    def _weights(self, scores: Tensor, window: int | None, softcap: float | None) -> Tensor:
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if window not in self._masks:
            self._masks[window] = self._mask(window, scores.shape[-1])
        mask = self._masks[window]
        return (scores if mask is None else scores + mask).softmax(dim=-1)

    def _mask(self, window: int | None, total: int) -> Tensor | None:
        """What is added to scores [B, 1, 1, 1, S]: minus infinity at places behind a shorter prompt and beyond the window."""
        lengths = [self.lengths[prompt] for prompt in self._grid.prompts]
        here = max(lengths) + self._step  # the position of the longest prompt's row
        if min(lengths) == self.root + self.longest and (window is None or here < window):
            return None
        ends_B1 = torch.tensor(lengths, device=self.device)[:, None]
        place_S = torch.arange(total, device=self.device)
        inside = self.root + self.longest
        hidden_BS = (place_S >= ends_B1) & (place_S < inside)
        if window is not None:
            positions_BS = torch.where(place_S < inside, place_S, place_S - inside + ends_B1)
            hidden_BS |= positions_BS <= ends_B1 + self._step - window
        return torch.zeros(hidden_BS.shape, device=self.device).masked_fill_(hidden_BS, float("-inf"))[:, None, None, None]


def _grown(old: Tensor | None, new_KBND: Tensor) -> Tensor:
    """Room for more written tokens: twice as much as before."""
    k, b, n, d = new_KBND.shape
    room = _GROW if old is None else 2 * old.shape[3]
    buffer = new_KBND.new_zeros((b, k, n, room, d))
    if old is not None:
        buffer[:, :, :, : old.shape[3]] = old
    return buffer


def _moved(written: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """Written keys or values [B, K, N, room, D] at the flat `places` of the old grid, as a grid of another shape."""
    flat = written.transpose(1, 2).flatten(0, 1).index_select(0, places)
    return flat.view(*shape, *flat.shape[1:]).transpose(1, 2).contiguous()


def decode_attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    decode: Store | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention while decoding; the signature is the one transformers calls.

    Args:
        decode: the store; prompts are read by forest attention and kept, tokens behind them are read out of it.
        rest: what this family passes besides: forest attention refuses what it does not know while the prompts are read.

    Returns:
        [1, tokens, heads, head width], and None in place of the attention weights.

    Raises:
        ForestUnsupportedError: no store arrived, the module has no layer number, or the family uses something that is not
            computed here.
    """
    layer = module.layer_idx if hasattr(module, "layer_idx") else None
    if decode is None or attention_mask is not None or not isinstance(layer, int) or not module.is_causal:
        raise ForestUnsupportedError(f"decoding over a forest cannot serve this call of {type(module).__name__}")
    if decode.reading:
        decode.hold(layer, *keyed(module, key_1KTD, value_1KTD))
        given = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap}
        return forest_attention(module, query_1HTD, key_1KTD, value_1KTD, None, forest=decode.layout, **given, **rest)
    scale = query_1HTD.shape[-1] ** -0.5 if scaling is None else scaling
    return decode.attend(layer, query_1HTD, key_1KTD, value_1KTD, (scale, sliding_window, softcap)), None


AttentionInterface.register(DECODE, decode_attention)
