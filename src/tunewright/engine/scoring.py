"""How probable given texts are: options of a question, continuations of a prompt, all in one pass over trees.

A prompt is a root and each continuation a child of it; what prompts have in common is computed once. The head runs once at each
hidden state that predicts anything, however many continuations ask for its opinion.

Shape suffixes: N targets, U hidden states that predict targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tunewright.data.forest import Segment, Tree
from tunewright.data.packing import batches_for
from tunewright.data.sharing import shared
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import chunk_rows
from tunewright.engine.packed import packed_linears

BUDGET = 4096  # tokens of one pass
MANY_TOKENS = 1024  # tokens in all from which laying out the weights anew pays


@dataclass(frozen=True)
class Scored:
    """One continuation.

    Args:
        log_probability: the sum of its tokens' log p, in nats.
        count: how many tokens.
        greedy: whether every one of them is the most probable token where it stands, as if the network had written it.
    """

    log_probability: float
    count: int
    greedy: bool


def score_continuations(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    token_budget: int = BUDGET,
) -> list[list[Scored]]:
    """log p(continuation | prompt) for every continuation of every prompt.

    Args:
        prompts: token ids; what the encoder reads, for an encoder-decoder.
        continuations: for each prompt, the token ids of each continuation; an empty one has probability 1.
        token_budget: tokens of one pass.

    Raises:
        ValueError: a prompt has no tokens: nothing would predict the first token behind it.
    """
    trees = []
    for prompt, options in zip(prompts, continuations, strict=True):
        if not prompt:
            raise ValueError("a prompt without tokens predicts nothing")
        children = (Segment(tuple(option), 0, (1.0,) * len(option)) for option in options if option)
        trees.append(Tree((Segment(tuple(prompt)), *children)))
    found = map(iter, score_trees(engine, trees, token_budget=token_budget))
    nothing = Scored(0.0, 0, greedy=True)
    return [[next(own) if option else nothing for option in options] for own, options in zip(found, continuations, strict=True)]


def score_trees(engine: Engine, trees: Sequence[Tree], *, token_budget: int = BUDGET) -> list[list[Scored]]:
    """The targets of every segment but the root, for each tree: one `Scored` a segment, in order."""
    numbered: list[Tree] = []  # a segment's row is its number among those of all trees: it survives packing and sharing
    starts, count = [], 0
    for tree in trees:
        starts.append(count)
        if tree.trained:
            numbered.append(Tree(tuple(replace(segment, row=count + place) for place, segment in enumerate(tree.segments))))
        count += len(tree.segments)
    sums, counts, greedy = _measured(engine, numbered, token_budget, count)
    every = [Scored(*found) for found in zip(sums, counts, greedy, strict=True)]
    return [every[start + 1 : start + len(tree.segments)] for start, tree in zip(starts, trees, strict=True)]


def _measured(engine: Engine, trees: Sequence[Tree], token_budget: int, count: int) -> tuple[list[float], list[int], list[bool]]:
    """For each of `count` segments: the sum of log p, how many targets, and whether all of them are the most probable tokens."""
    if engine.layout == "forest":
        trees = [found.tree for found in shared(trees, token_budget, edges=engine.model.lanes.edges)]
    sums = torch.zeros(count, dtype=torch.float64)
    counts, misses = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    tunings = frozenset(tree.tuning for tree in trees)
    many = engine.precision == "float32" and sum(tree.size for tree in trees) >= MANY_TOKENS
    with engine.evaluating(), engine.autocast(), packed_linears(engine, tunings) if many else nullcontext():
        for chosen in batches_for(trees, token_budget):
            batch = engine.collate([trees[index] for index in chosen])
            scores_N, first_N = _targets(engine, batch)
            owners_N = batch.row_S[batch.owners_N].cpu()
            sums.index_add_(0, owners_N, scores_N.double().cpu())
            counts += torch.bincount(owners_N, minlength=count)
            misses += torch.bincount(owners_N[~first_N.cpu()], minlength=count)
    return sums.tolist(), counts.tolist(), (misses == 0).tolist()


def _targets(engine: Engine, batch: Batch) -> tuple[Tensor, Tensor]:
    """log p of each target, and whether no token is more probable."""
    scores_N = torch.empty(len(batch.rows_N), device=engine.device)
    first_N = torch.empty(len(batch.rows_N), dtype=torch.bool, device=engine.device)
    for logits_UV, own_N, rows_N in _logits(engine, batch):
        picked_N = logits_UV[rows_N, batch.targets_N[own_N]]
        scores_N[own_N] = picked_N - logits_UV.logsumexp(dim=1)[rows_N]
        first_N[own_N] = picked_N >= logits_UV.amax(dim=1)[rows_N]
    return scores_N, first_N


def _logits(engine: Engine, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Float32 logits in chunks of bounded size, which targets each chunk serves, and the row that predicts each of these."""
    if batch.source_BT is not None or engine.language_head is None:
        every_N = torch.arange(len(batch.rows_N), device=engine.device)
        yield engine.target_logits(batch).float(), every_N, every_N
        return
    rows_U, places_N = batch.rows_N.unique(return_inverse=True)
    hidden_UD = engine.hidden_at(batch, rows_U)
    step = chunk_rows(engine.model.vocabulary)
    for start in range(0, len(rows_U), step):
        own_N = ((places_N >= start) & (places_N < start + step)).nonzero()[:, 0]
        yield engine.language_head.logits(hidden_UD[start : start + step]).float(), own_N, places_N[own_N] - start
