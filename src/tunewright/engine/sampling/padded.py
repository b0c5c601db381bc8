"""Decoding with transformers' own cache: for networks that take no forest, for encoder-decoders, and as the uncached reference.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from tunewright.engine.engine import Engine
from tunewright.engine.network import pad_of, start_of
from tunewright.engine.places import OUTSIDE, at, of_prompt
from tunewright.models.lanes import Lane, Places


def lanes_of(tunings: Sequence[int], width: int) -> tuple[Lane, ...]:
    """The lanes of rows of `width` positions each, whose equal tunings stand together."""
    lanes: list[Lane] = []
    for place, tuning in enumerate(tunings):
        if lanes and lanes[-1].tuning == tuning:
            lanes[-1] = Lane(tuning, lanes[-1].start, (place + 1) * width)
        else:
            lanes.append(Lane(tuning, place * width, (place + 1) * width))
    return tuple(lanes)


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts that end at the same column, and 1 where their tokens are."""
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for number, prompt in enumerate(prompts):
        tokens[number, longest - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        mask[number, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def places_of(engine: Engine, prompts: Sequence[Sequence[int]], tokens_BT: Tensor, mask_BT: Tensor) -> Places | None:
    """Where the tokens of prompts stand in them; None where no tuning on the base asks."""
    return at(tokens_BT, map(of_prompt, prompts), mask_BT) if engine.model.lanes.edges else None


class PaddedDecoder:
    """A decoder-only network on left-padded rows.

    Args:
        prompts: one for each row.
        tunings: whose row each is; equal ones stand together.
        cache: keep keys and values; False recomputes everything at each token.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], tunings: Sequence[int], cache: bool) -> None:
        self._engine, self._tunings = engine, list(tunings)
        self._tokens_BT, self._mask_BT = left_padded(prompts, pad_of(engine.model), engine.device)
        self._kept = DynamicCache(config=engine.model.network.config) if cache else None
        places = places_of(engine, prompts, self._tokens_BT, self._mask_BT)
        self._marks_BT = () if places is None else tuple(marks_T.view(self._tokens_BT.shape) for marks_T in places)

    def start(self) -> Tensor:
        """Logits [B, V] behind the prompts."""
        return self._run(self._tokens_BT)

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Logits [B, V] behind one more token of every row."""
        last_B1 = torch.tensor(tokens, device=self._engine.device)[:, None]
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(last_B1)], dim=1)
        self._marks_BT = tuple(torch.cat([marks_BT, torch.full_like(last_B1, OUTSIDE)], dim=1) for marks_BT in self._marks_BT)
        self._tokens_BT = torch.cat([self._tokens_BT, last_B1], dim=1)
        return self._run(self._tokens_BT if self._kept is None else last_B1)

    def keep(self, chosen: Sequence[int]) -> None:
        """Only these rows go on."""
        chosen_B = torch.tensor(chosen, device=self._engine.device)
        self._tokens_BT, self._mask_BT = self._tokens_BT[chosen_B], self._mask_BT[chosen_B]
        self._marks_BT = tuple(marks_BT[chosen_B] for marks_BT in self._marks_BT)
        self._tunings = [self._tunings[number] for number in chosen]
        if self._kept is not None:
            self._kept.batch_select_indices(chosen_B)

    def _run(self, fed_BT: Tensor) -> Tensor:
        width = fed_BT.shape[1]
        positions_BT = (self._mask_BT.cumsum(1) - 1).clamp_min(0)[:, -width:]
        places = Places(*(marks_BT[:, -width:].flatten() for marks_BT in self._marks_BT)) if self._marks_BT else None
        with self._engine.model.lanes.during(lanes_of(self._tunings, width), places=places):
            output = self._engine.model.network(
                input_ids=fed_BT,
                attention_mask=self._mask_BT,
                position_ids=positions_BT,
                past_key_values=self._kept,
                use_cache=self._kept is not None,
                logits_to_keep=1,
            )
        return output.logits[:, -1].float()


class PairDecoder:
    """An encoder-decoder: the encoder reads once, the decoder writes; the cache belongs to the model's own decoder.

    Args:
        prompts: what the encoder reads, one for each row.
        cache: keep keys and values; False recomputes the decoder at each token.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], cache: bool) -> None:
        self._engine, self._cache = engine, cache
        reversed_BT, reversed_mask = left_padded([prompt[::-1] for prompt in prompts], pad_of(engine.model), engine.device)
        # The encoder is padded on the right, as in training.
        self._source_BT, self._source_mask_BT = reversed_BT.flip(1), reversed_mask.flip(1)
        self._tokens_BT = torch.full((len(prompts), 1), start_of(engine.model), dtype=torch.long, device=engine.device)
        self._past = None
        self._places = places_of(engine, prompts, self._source_BT, self._source_mask_BT)

    def start(self) -> Tensor:
        """Logits [B, V] of the first token."""
        lanes = self._engine.model.lanes
        with lanes.during(lanes.runs, places=self._places):
            self._read = self._engine.model.network.get_encoder()(input_ids=self._source_BT, attention_mask=self._source_mask_BT)
        return self._run()

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Logits [B, V] behind one more token of every row."""
        last_B1 = torch.tensor(tokens, device=self._engine.device)[:, None]
        self._tokens_BT = torch.cat([self._tokens_BT, last_B1], dim=1)
        return self._run()

    def keep(self, chosen: Sequence[int]) -> None:
        """Only these rows go on."""
        chosen_B = torch.tensor(chosen, device=self._engine.device)
        self._tokens_BT, self._source_mask_BT = self._tokens_BT[chosen_B], self._source_mask_BT[chosen_B]
        self._read.last_hidden_state = self._read.last_hidden_state[chosen_B]
        if self._past is not None:
            self._past.batch_select_indices(chosen_B)

    def _run(self) -> Tensor:
        output = self._engine.model.network(
            encoder_outputs=self._read,
            attention_mask=self._source_mask_BT,
            decoder_input_ids=self._tokens_BT if self._past is None else self._tokens_BT[:, -1:],
            past_key_values=self._past,
            use_cache=self._cache,
        )
        self._past = output.past_key_values if self._cache else None
        return output.logits[:, -1].float()
