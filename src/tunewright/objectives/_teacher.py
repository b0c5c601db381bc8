"""What a teacher says at the targets of a batch: asked in its own layout each time, or once a row and remembered.

The teacher reads the trees that a batch was made of, behind its own virtual tokens, so that student and teacher need not agree on
anything but the vocabulary. Letters: N targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.packing import batches_for
from tunewright.engine.divergence import Teacher, Top, aligned, most_probable
from tunewright.engine.loss import chunk_rows, chunks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.forest import Tree
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine

BUDGET = 4096  # tokens of one forward pass without gradients
WHERE = "objective.teacher"
KINDS = {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder-decoder"}


@dataclass(frozen=True)
class Kept:
    """How much of a teacher's distribution is kept: its `count` most probable tokens, and with `rest` what the others have."""

    count: int
    temperature: float
    rest: bool


@dataclass
class _Known:
    """What was found out about one teacher: the student that it was compared with, and its most probable tokens, by row."""

    student: ref[Engine] | None = None
    tops: dict[Hashable, Top] = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[Engine, _Known] = WeakKeyDictionary()


def teacher_of(engine: Engine, name: str) -> Engine:
    """The opened teacher of a student's engine, compared with the student once.

    Raises:
        BaseModelError: it is of another kind, has a task head, or another vocabulary.
        ValueError: nobody opened it.
    """
    if name not in engine.beside:
        raise ValueError(f"the teacher '{name}' does not stand beside this engine")
    teacher = engine.beside[name].engine
    known = _KNOWN.setdefault(teacher, _Known())
    if known.student is None or known.student() is not engine:
        _compare(engine, teacher, name)
        known.student = ref(engine)
    return teacher


def _compare(student: Engine, teacher: Engine, name: str) -> None:
    if teacher.model.kind != student.model.kind or teacher.head is not None:
        kinds = [KINDS[model.kind] for model in (teacher.model, student.model)]
        problem = f"'{name}' is a classifier" if teacher.head is not None else f"'{name}' is {kinds[0]}, the student {kinds[1]}"
        hint = f"Let it answer first, and learn its answers: tunewright answer DATA --model {name} --output FILE"
        raise BaseModelError(f"{problem}, so they have no distributions of tokens to compare", where=WHERE, hint=hint)
    difference = vocabulary_difference(teacher.model.tokenizer, student.model.tokenizer)
    if difference:
        hint = f"Let it answer first, and learn its answers: tunewright answer DATA --model {name} --output FILE"
        raise BaseModelError(f"the vocabulary of '{name}' is another one: {difference}", where=WHERE, hint=hint)


def vocabulary_difference(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> str:
    """In which way two tokenizers number tokens differently, as a clause; empty where they do not."""
    one, other = teacher.get_vocab(), student.get_vocab()
    if one == other:
        return ""
    told = f"it has {len(one)} tokens, the student's {len(other)}"
    by_id, by_other = ({place: token for token, place in known.items()} for known in (one, other))
    first = min(place for place in by_id.keys() | by_other.keys() if by_id.get(place) != by_other.get(place))
    shown = [repr(known[first]) if first in known else "nothing" for known in (by_id, by_other)]
    return f"{told}, and number {first} is {shown[0]} for it and {shown[1]} for the student"


def require_room(teacher: Engine, trees: Sequence[Tree], name: str) -> None:
    """Refuse rows that are longer than the teacher can read.

    Raises:
        BaseModelError: one is.
    """
    context = teacher.model.context
    virtual = max(map(len, teacher.model.lanes.begins.values()), default=0)
    longest = max((tree.depth(leaf) + len(tree.segments[leaf].tokens) for tree in trees for leaf in tree.leaves()), default=0)
    if context is not None and longest > context - virtual:
        problem = f"'{name}' reads {context - virtual} tokens, and the longest row has {longest}"
        raise BaseModelError(problem, where=WHERE, hint=f"Set rendering.max_tokens to {context - virtual}.")


def asked(teacher: Engine, batch: Batch) -> Teacher:
    """The teacher's logits at the targets of a student's batch, made stretch by stretch from its hidden states."""
    with teacher.evaluating(), _undisturbed(teacher):
        return _logits(teacher, _own(teacher, _trees_of(batch)))


def _trees_of(batch: Batch) -> list[Tree]:
    """The trees whose targets a batch, or the part of a tuning, holds."""
    return [tree for tree in batch.trees if batch.tuning is None or tree.tuning == batch.tuning]


def _own(teacher: Engine, trees: Sequence[Tree]) -> Batch:
    return teacher.collate([tree if tree.tuning == 0 else tree.owned_by(0) for tree in trees])


def _undisturbed(teacher: Engine) -> torch.autocast | nullcontext[None]:
    """The teacher computes in its own precision, whatever the student's is."""
    return (
        nullcontext() if not torch.is_autocast_enabled(teacher.device.type) else torch.autocast(teacher.device.type, enabled=False)
    )


def _logits(teacher: Engine, own: Batch) -> Callable[[slice], Tensor]:
    head = teacher.language_head
    with teacher.autocast():
        if head is None or own.source_BT is not None:
            logits_NV = teacher.target_logits(own)
            return lambda part: logits_NV[part]
        hidden_ND = teacher.hidden_at(own, own.rows_N)

    def made(part: slice) -> Tensor:
        with torch.no_grad(), _undisturbed(teacher), teacher.autocast():
            return head.logits(hidden_ND[part])

    return made


def remembered(teacher: Engine, batch: Batch, kept: Kept, vocabulary: int) -> Top:
    """The teacher's most probable tokens at the targets of a student's batch; each row is asked about once.

    Raises:
        ConfigurationError: the vocabulary is no larger than what should be kept of it.
    """
    trees = _trees_of(batch)
    remember(teacher, trees, kept, vocabulary)
    tops = _KNOWN.setdefault(teacher, _Known()).tops
    found = [tops[_key(tree, kept)] for tree in trees]
    rests = [top.log_rest_N for top in found if top.log_rest_N is not None]
    device = batch.targets_N.device
    return Top(
        torch.cat([top.ids_NK for top in found]).to(device, torch.long),
        torch.cat([top.log_p_NK for top in found]).to(device),
        torch.cat(rests).to(device) if rests else None,
    )


def remember(teacher: Engine, trees: Sequence[Tree], kept: Kept, vocabulary: int) -> None:
    """Ask the teacher about the rows that it was not asked about yet.

    Raises:
        ConfigurationError: the vocabulary is no larger than what should be kept of it.
    """
    tops = _KNOWN.setdefault(teacher, _Known()).tops
    missing = list({key: tree for tree in trees if (key := _key(tree, kept)) not in tops}.values())
    if not missing:
        return
    most = min(vocabulary, teacher.model.vocabulary)
    if kept.count >= most:
        hint = "Ask for fewer, or leave it out: all tokens are compared then."
        raise ConfigurationError(f"{kept.count} of {most} tokens would be kept", where="objective.top_k", hint=hint)
    with teacher.evaluating(), _undisturbed(teacher):
        for chosen in batches_for(missing, BUDGET):
            some = [missing[index] for index in chosen]
            top, start = _tops(teacher, some, kept, vocabulary), 0
            for tree in some:
                tops[_key(tree, kept)] = _copied(top.at(slice(start, start + tree.trained)))
                start += tree.trained


def _key(tree: Tree, kept: Kept) -> Hashable:
    return kept, tuple(
        (segment.tokens, segment.parent, tuple(weight > 0 for weight in segment.targets)) for segment in tree.segments
    )


def _tops(teacher: Engine, trees: Sequence[Tree], kept: Kept, vocabulary: int) -> Top:
    own = _own(teacher, trees)
    logits = _logits(teacher, own)
    parts = [
        most_probable(aligned(logits(part), vocabulary), kept.count, kept.temperature, rest=kept.rest)
        for part in chunks(len(own.targets_N), chunk_rows(vocabulary))
    ]
    rests = [part.log_rest_N for part in parts if part.log_rest_N is not None]
    ids_NK, log_p_NK = torch.cat([part.ids_NK for part in parts]), torch.cat([part.log_p_NK for part in parts])
    return Top(ids_NK.int().cpu(), log_p_NK.cpu(), torch.cat(rests).cpu() if rests else None)


def _copied(top: Top) -> Top:
    """The same without the memory of its neighbours."""
    return Top(top.ids_NK.clone(), top.log_p_NK.clone(), None if top.log_rest_N is None else top.log_rest_N.clone())
