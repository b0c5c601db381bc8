"""Writing text: batched decoding with a key-value cache; finished rows leave the batch.

Greedy decoding gives the same tokens as transformers' `generate`; sampling draws each row's random numbers from (seed, row,
position), so an answer does not depend on what else is in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from tunewright.core.seeds import derive
from tunewright.engine.engine import Engine, pad_of, start_of, use_layout
from tunewright.engine.settings import Sampling

BATCH_TOKENS = 8192  # prompt tokens decoded side by side, padding included


@dataclass(frozen=True)
class Sample:
    """One answer: its tokens without the end token, and whether it ended by itself."""

    tokens: tuple[int, ...]
    finished: bool


def sample(
    engine: Engine, prompts: Sequence[Sequence[int]], settings: Sampling, *, ends: frozenset[int], cache: bool = True
) -> list[Sample]:
    """An answer for every prompt, in order.

    Args:
        prompts: token ids to continue (to read, for an encoder-decoder).
        ends: token ids that end an answer.
        cache: keep keys and values; False recomputes everything at each token (the reference).
    """
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers: dict[int, Sample] = {}
    with engine.evaluating(), engine.autocast():
        use_layout(engine.model, "padded")
        try:
            for group in _groups(order, prompts, settings.max_new_tokens):
                decoded = (_decode_pairs if engine.model.kind == "encoder_decoder" else _decode)(
                    engine, group, prompts, settings, ends, cache
                )
                answers.update(decoded)
        finally:
            use_layout(engine.model, engine.layout)
    return [answers[index] for index in range(len(prompts))]


def _groups(order: Sequence[int], prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """Neighbours in length, as many as fit the budget side by side."""
    groups: list[list[int]] = []
    for index in order:
        width = len(prompts[index]) + new
        if not groups or (len(groups[-1]) + 1) * width > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(index)
    return groups


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for number, prompt in enumerate(prompts):
        tokens[number, longest - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
        mask[number, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def _decode(
    engine: Engine, group: list[int], prompts: Sequence[Sequence[int]], settings: Sampling, ends: frozenset[int], cache: bool
) -> dict[int, Sample]:
    network = engine.model.network
    tokens_BT, mask_BT = _left_padded([prompts[index] for index in group], pad_of(engine.model), engine.device)
    alive, written = list(group), {index: [] for index in group}
    finished: dict[int, Sample] = {}
    kept = DynamicCache(config=network.config) if cache else None
    fed_BT = tokens_BT
    for place in range(settings.max_new_tokens):
        positions_BT = (mask_BT.cumsum(1) - 1).clamp_min(0)[:, -fed_BT.shape[1] :]
        output = network(
            input_ids=fed_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=kept,
            use_cache=cache,
            logits_to_keep=1,
        )
        new = _pick(output.logits[:, -1].float(), settings, alive, place)
        staying = []
        for number, token in enumerate(new):
            if token in ends:
                finished[alive[number]] = Sample(tuple(written[alive[number]]), True)
                continue
            written[alive[number]].append(token)
            staying.append(number)
        if not staying:
            return finished
        chosen = torch.tensor(staying, device=engine.device)
        if len(staying) < len(alive):
            mask_BT, tokens_BT = mask_BT[chosen], tokens_BT[chosen]
            alive = [alive[number] for number in staying]
            if kept is not None:
                kept.batch_select_indices(chosen)
        last_B1 = torch.tensor([[new[number]] for number in staying], device=engine.device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(last_B1)], dim=1)
        tokens_BT = torch.cat([tokens_BT, last_B1], dim=1)
        fed_BT = last_B1 if cache else tokens_BT
    return finished | {index: Sample(tuple(written[index]), False) for index in alive}


def _decode_pairs(
    engine: Engine, group: list[int], prompts: Sequence[Sequence[int]], settings: Sampling, ends: frozenset[int], cache: bool
) -> dict[int, Sample]:
    """Encoder-decoders: the encoder reads once, the decoder writes; the cache belongs to the model's own decoder."""
    network = engine.model.network
    reversed_BT, reversed_mask = _left_padded([prompts[index][::-1] for index in group], pad_of(engine.model), engine.device)
    source_BT, source_mask = reversed_BT.flip(1), reversed_mask.flip(1)  # the encoder is padded on the right, as in training
    encoded = network.get_encoder()(input_ids=source_BT, attention_mask=source_mask)
    written = {index: [] for index in group}
    done: set[int] = set()
    decoder_BT = torch.full((len(group), 1), start_of(engine.model), dtype=torch.long, device=engine.device)
    past = None
    for place in range(settings.max_new_tokens):
        output = network(
            encoder_outputs=encoded,
            attention_mask=source_mask,
            decoder_input_ids=decoder_BT if past is None else decoder_BT[:, -1:],
            past_key_values=past,
            use_cache=cache,
        )
        past = output.past_key_values if cache else None
        new = _pick(output.logits[:, -1].float(), settings, group, place)
        for number, index in enumerate(group):
            if new[number] in ends:
                done.add(index)
            elif index not in done:
                written[index].append(new[number])
        if len(done) == len(group):
            break
        decoder_BT = torch.cat([decoder_BT, torch.tensor(new, device=engine.device)[:, None]], dim=1)
    return {index: Sample(tuple(written[index]), index in done) for index in group}


def _pick(logits_BV: Tensor, settings: Sampling, rows: Sequence[int], place: int) -> list[int]:
    """The next token of every row."""
    if settings.temperature == 0:
        return logits_BV.argmax(dim=1).tolist()
    ordered_BV, tokens_BV = (logits_BV / settings.temperature).softmax(dim=1).sort(dim=1, descending=True)
    if settings.top_k:
        ordered_BV[:, settings.top_k :] = 0
        ordered_BV /= ordered_BV.sum(1, keepdim=True)  # as in transformers: `top_p` is a share of what `top_k` left
    before_BV = ordered_BV.cumsum(1) - ordered_BV
    ordered_BV = ordered_BV.masked_fill(before_BV >= settings.top_p, 0)
    heights_BV, kept_B1 = ordered_BV.cumsum(1), (ordered_BV > 0).sum(1, keepdim=True)
    drawn = [random.Random(derive(settings.seed, "sample", row, place)).random() for row in rows]
    aimed_B1 = heights_BV[:, -1:] * torch.tensor(drawn, device=heights_BV.device)[:, None]
    # A draw that rounds up to the whole height must not fall off the end onto tokens that were cut away.
    picked_B1 = torch.searchsorted(heights_BV, aimed_B1, right=True).minimum(kept_B1 - 1)
    return tokens_BV.gather(1, picked_B1)[:, 0].tolist()
