"""Writing text: batched decoding in which prompts are read once and finished rows leave the batch.

Greedy decoding gives the same tokens as transformers' `generate`; sampling draws the numbers of each answer from (seed, prompt,
sample, position), so an answer does not depend on what else is in the batch. `forest` is the way of decoders whose layout is the
forest, `padded` that of all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from tunewright.engine.attention import ForestUnsupportedError
from tunewright.engine.engine import Engine
from tunewright.engine.network import use_layout
from tunewright.engine.packed import packed_linears
from tunewright.engine.sampling.forest import ForestDecoder
from tunewright.engine.sampling.padded import PaddedDecoder, PairDecoder
from tunewright.engine.sampling.prompts import Prompt, Request, Sample, as_prompts
from tunewright.engine.sampling.rows import Row, rows_of, write
from tunewright.engine.sampling.store import DECODE
from tunewright.engine.settings import Sampling

__all__ = ["Prompt", "Sample", "sample", "sample_groups"]

BATCH_TOKENS = 8192  # tokens of prompts and answers that are decoded side by side
MANY_STEPS = 8  # tokens an answer from which laying out the weights anew pays


def sample(
    engine: Engine,
    prompts: Sequence[Sequence[int] | Prompt],
    settings: Sampling,
    *,
    ends: frozenset[int],
    cache: bool = True,
) -> list[Sample]:
    """One answer for every prompt, in order.

    Args:
        prompts: token ids to continue (to read, for an encoder-decoder); as `Prompt` where a tuning of a bank is to write.
        ends: token ids that end an answer.
        cache: keep keys and values; False recomputes everything at each token (the reference).

    Raises:
        ValueError: a prompt has no tokens.
    """
    request = Request(as_prompts(prompts, engine.model.lanes.begins), settings, ends, cache=cache)
    return [answers[0] for answers in _answered(engine, request)]


def sample_groups(
    engine: Engine,
    prompts: Sequence[Sequence[int] | Prompt],
    settings: Sampling,
    *,
    ends: frozenset[int],
    samples: int,
    scored: bool = False,
) -> list[list[Sample]]:
    """Several answers for every prompt, which is read once for all of them.

    Args:
        samples: answers a prompt.
        scored: note the log-probability of every drawn token.

    Raises:
        ValueError: a prompt has no tokens, or fewer than one answer is asked for.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples a prompt were asked for")
    return _answered(engine, Request(as_prompts(prompts, engine.model.lanes.begins), settings, ends, samples, scored))


def _answered(engine: Engine, request: Request) -> list[list[Sample]]:
    found: list[list[Sample]] = [[] for _ in request.prompts]
    # Tunings stand together; neighbours in length, so that little is padded.
    order = sorted(
        range(len(request.prompts)), key=lambda index: (request.prompts[index].tuning, len(request.prompts[index].tokens), index)
    )
    with engine.evaluating(), engine.autocast():
        waiting = order
        if engine.layout == "forest" and engine.language_head is not None and request.cache:
            waiting = _over_the_forest(engine, request, order, found)
        _padded(engine, request, waiting, found)
    return found


def _over_the_forest(engine: Engine, request: Request, order: list[int], found: list[list[Sample]]) -> list[int]:
    """Fill `found`; returns the prompts that are still unanswered because the family asks attention for something unknown."""
    head = engine.language_head
    assert head is not None
    waiting = list(order)
    tunings = frozenset(prompt.tuning for prompt in request.prompts)
    with _attention(engine), packed_linears(engine, tunings) if request.settings.max_new_tokens >= MANY_STEPS else nullcontext():
        for group in _groups(order, request, shared=True):
            decoder = ForestDecoder(engine, [request.prompts[index] for index in group], head)
            try:
                decoder.read()
            except ForestUnsupportedError:
                return waiting
            for numbers in _rounds(len(group), request):
                decoder.seat([place for place in range(len(group)) for _ in numbers])
                rows = rows_of(request, [(index, number) for index in group for number in numbers], engine.model.tokenizer)
                write(decoder, rows, request)
                _note(rows, found)
            waiting = waiting[len(group) :]
    return waiting


def _padded(engine: Engine, request: Request, order: list[int], found: list[list[Sample]]) -> None:
    if not order:
        return
    use_layout(engine.model, "padded")
    try:
        for group in _groups(order, request, shared=False):
            members = [(index, number) for index in group for number in range(request.samples)]
            tokens = [request.prompts[index].tokens for index, _ in members]
            if engine.model.kind == "encoder_decoder":
                decoder = PairDecoder(engine, tokens, request.cache)
            else:
                tunings = [request.prompts[index].tuning for index, _ in members]
                # A cache of transformers would keep the keys that virtual tokens have, and not those that they are given.
                cached = request.cache and not engine.model.lanes.keyed.intersection(tunings)
                decoder = PaddedDecoder(engine, tokens, tunings, cached)
            rows = rows_of(request, members, engine.model.tokenizer)
            write(decoder, rows, request)
            _note(rows, found)
    finally:
        use_layout(engine.model, engine.layout)


def _note(rows: Sequence[Row], found: list[list[Sample]]) -> None:
    for row in rows:
        found[row.index].append(row.done())


def _groups(order: Sequence[int], request: Request, *, shared: bool) -> Iterator[list[int]]:
    """Neighbours, as many as fit the budget side by side: prompts once if `shared`, else padded to the longest for every sample."""
    group: list[int] = []
    used = 0
    for index in order:
        length, new = len(request.prompts[index].tokens), request.samples * request.settings.max_new_tokens
        size = length + new if shared else request.samples * length + new
        longest = used + size if shared else (len(group) + 1) * size  # neighbours grow in length: the newest is the longest
        if group and longest > BATCH_TOKENS:
            yield group
            group, used = [], 0
        group.append(index)
        used += size
    if group:
        yield group


def _rounds(prompts: int, request: Request) -> list[range]:
    """The samples that are written at once: all of them, except where those of a single prompt exceed the budget."""
    most = max(1, BATCH_TOKENS // request.settings.max_new_tokens) if prompts == 1 else request.samples
    return [range(start, min(start + most, request.samples)) for start in range(0, request.samples, most)]


@contextmanager
def _attention(engine: Engine) -> Iterator[None]:
    engine.model.network.set_attn_implementation(DECODE)
    try:
        yield
    finally:
        use_layout(engine.model, engine.layout)
