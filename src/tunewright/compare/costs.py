"""What a tuning costs whoever uses it, and what it has forgotten, measured on a finished run.

Shape suffixes: S segments, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from tunewright.core.runs import RunFolder
from tunewright.data.forest import Tree, single
from tunewright.data.packing import batches_for
from tunewright.data.rendering import Refusal
from tunewright.data.rows import Row
from tunewright.evaluation.opening import Opened, open_model

PASSES = 5  # timed passes a side, in turn; their median counts
ROWS = 100  # test rows of a timed pass
WINDOW = 256  # tokens of general text that are read at once
BUDGET = 2048  # tokens of one forward pass


class Forgetting(NamedTuple):
    """How far general text has moved away.

    Args:
        rise: for language models the loss per token on general text, tuned minus base; for encoders one minus the mean cosine of
            tuned and base sentence vectors (mean of the last hidden states). None where neither is defined (encoder-decoders).
        kind: `loss` or `cosine`.
    """

    rise: float | None
    kind: str


def bytes_of(run: Path) -> int:
    """Bytes of the weights that the run has to keep: an adapter, or a whole model."""
    return sum(path.stat().st_size for place in ("adapter", "model") for path in (run / place).glob("*.safetensors"))


def seconds_per_thousand(run: Path, tokens_a_pass: int) -> float:
    """Training seconds for 1,000 tokens of the user's rows, from the steps that the run logged; validation is not in it.

    Args:
        tokens_a_pass: tokens of all training rows, as the base's tokenizer counts them; what a method adds is its own affair.
    """
    steps = RunFolder(run).logged()
    # The first step allocates and warms up; it is left out where there are others.
    kept = steps[1:] or steps
    seen = (steps[-1]["epoch"] - (steps[0]["epoch"] if len(steps) > 1 else 0.0)) * tokens_a_pass
    return 1000 * sum(step["seconds"] for step in kept) / seen


def tokens_of(opened: Opened, rows: Sequence[Row]) -> int:
    """Tokens of `rows` as the run read them."""
    return sum(tree.size for tree in trees_of(opened, rows))


def trees_of(opened: Opened, rows: Sequence[Row]) -> list[Tree]:
    """The rows as the objective plants them; those that it refuses are left out."""
    return [item.tree for item in opened.objective.plant(rows, opened.renderer) if not isinstance(item, Refusal)]


def slow_down(opened: Opened, rows: Sequence[Row]) -> float:
    """Seconds of reading rows with the tuning on, as a multiple of the base's; 1 where the change is in the base's own weights."""
    if opened.tuning is None:
        return 1.0
    trees = trees_of(opened, rows[:ROWS])
    sides: dict[str, Callable[[], AbstractContextManager[None]]] = {"tuned": nullcontext, "base": opened.tuning.disabled}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with opened.engine.evaluating():
        for _, (name, on) in product(range(PASSES + 1), sides.items()):
            with on():
                seconds[name].append(_seconds(opened, trees))
    tuned, base = (median(seconds[name][1:]) for name in ("tuned", "base"))  # the first of each side warms up
    return tuned / base


def _seconds(opened: Opened, trees: Sequence[Tree]) -> float:
    """Wall seconds of one pass over the trees."""
    began = time.perf_counter()
    for chosen in batches_for(trees, BUDGET):
        _read(opened, [trees[index] for index in chosen])
    return time.perf_counter() - began


@torch.no_grad()
def _read(opened: Opened, trees: Sequence[Tree]) -> None:
    """One pass over the trees, as far as the last hidden states (an encoder-decoder's logits)."""
    batch = opened.engine.collate(trees)
    if opened.model.kind == "encoder_decoder":
        opened.engine.target_logits(batch)
    else:
        opened.engine.hidden(batch)


def forgetting(run: Path, base: str, text: str) -> Forgetting:
    """What the tuned model of a run has forgotten of general text.

    Args:
        base: what was tuned.
        text: general text that neither was trained on, a paragraph a line.
    """
    opened = open_model(str(run))
    if opened.model.kind == "encoder_decoder":
        return Forgetting(None, "loss")
    measure = _vectors if opened.model.kind == "encoder" else _losses
    after = measure(opened, text)
    if opened.tuning is not None:
        with opened.tuning.disabled():
            before = measure(opened, text)
    else:
        before = measure(open_model(base), text)
    if opened.model.kind == "encoder":
        return Forgetting(1 - float(torch.cosine_similarity(after, before, dim=1).mean()), "cosine")
    return Forgetting(float(after.mean() - before.mean()), "loss")


def _pieces(opened: Opened, text: str) -> list[Tree]:
    """The text's paragraphs as trees of at most `WINDOW` tokens, every token but the first a target where the base writes."""
    tokenizer, found = opened.model.tokenizer, []
    room = min(WINDOW, opened.model.context or WINDOW)
    for paragraph in filter(None, map(str.strip, text.splitlines())):
        tokens: list[int] = tokenizer(paragraph)["input_ids"]  # pyright: ignore[reportAssignmentType]
        for start in range(0, len(tokens), room):
            piece = tuple(tokens[start : start + room])
            if len(piece) > 1:
                targets = () if opened.model.kind == "encoder" else (0.0, *[1.0] * (len(piece) - 1))
                found.append(single(piece, targets))
    return found


@torch.no_grad()
def _losses(opened: Opened, text: str) -> Tensor:
    """-log p of every target of the text, [N]."""
    trees = _pieces(opened, text)
    with opened.engine.evaluating():
        parts = [opened.engine.score([trees[index] for index in chosen])[0] for chosen in batches_for(trees, BUDGET)]
    return -torch.cat(parts)


@torch.no_grad()
def _vectors(opened: Opened, text: str) -> Tensor:
    """The mean last hidden state of each piece, [S, D]."""
    trees, found = _pieces(opened, text), {}
    with opened.engine.evaluating():
        for chosen in batches_for(trees, BUDGET):
            batch = opened.engine.collate([trees[index] for index in chosen])
            hidden_TD = opened.engine.hidden(batch).float()
            for index, (start, stop) in zip(chosen, batch.spans_S2.tolist(), strict=True):
                found[index] = hidden_TD[start:stop].mean(dim=0)
    return torch.stack([found[index] for index in range(len(trees))])


def general_text(file: Path | None, base: str) -> str:
    """The general text to measure forgetting on: the user's, or what ships (the embedded base has its own made-up world)."""
    if file is not None:
        return file.read_text(encoding="utf-8")
    from tunewright import examples

    return examples.path("town.txt" if base == "embedded" else "general.txt").read_text(encoding="utf-8")
