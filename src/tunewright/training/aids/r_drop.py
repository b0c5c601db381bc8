"""R-Drop: two passes over a batch with other dropout, and what both say at the targets held together.

Shape suffixes: N targets, V vocabulary, D width, S segments, C outputs of a head, U own tokens of all segments, L tokens of
one, M of these that may be in a span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.core.errors import ConfigurationError
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.loss import Loss
from tunewright.engine.prefix.cut import Prefix, lowest_trainable_block
from tunewright.engine.symmetric import passes_apart, symmetric_kl
from tunewright.models.heads import Head


@dataclass
class Heard:
    """What one pass said: the head's outputs, the logits of a network that was called whole, or the last hidden states [B*T, D]."""

    outputs: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class RDrop:
    """An objective's loss with R-Drop: total = (total_1 + total_2) / 2 + weight * sum of w J, count as it is.

    J is half the sum of both KL divergences: of the distributions over the vocabulary at each target token (w as it is learned), of
    labels, of tags, of the places where a span starts and ends, of which answer is the best; of several labels the sum over labels;
    of numbers the squared difference.

    Source: Liang et al., arXiv 2106.14448, with the mean of both losses as their code has it.

    Args:
        loss: the objective's.
        weight: alpha.
        by_row: a row's tokens count one together: the loss is a sum over rows (preferences).
    """

    loss: LossFunction
    weight: float
    by_row: bool = False

    def __call__(self, engine: Engine, batch: Batch) -> Loss:
        one, first = self._passed(engine, batch)
        other, second = self._passed(engine, batch)
        apart = divergence(engine, batch, (one, other), by_row=self.by_row)
        return Loss((first.total + second.total) / 2 + self.weight * apart, first.count)

    def _passed(self, engine: Engine, batch: Batch) -> tuple[Tensor, Loss]:
        with listening(engine, batch) as heard:
            loss = self.loss(engine, batch)
        if not heard.outputs:
            raise ValueError("no pass was made: R-Drop makes two of its own, and tunings that share a bank share one")
        return heard.outputs[-1], loss


@contextmanager
def listening(engine: Engine, batch: Batch) -> Iterator[Heard]:
    """What the passes inside say; those without gradients (a base beside its tuning) are not listened to."""
    heard = Heard()
    head = engine.member_of(batch).head
    module: nn.Module = head or (engine.model.network if _called_whole(engine, batch) else engine.model.body)

    def hear(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            heard.outputs.append(output if isinstance(output, Tensor) else _of_network(output))

    handle = module.register_forward_hook(hear)
    try:
        yield heard
    finally:
        handle.remove()


def _of_network(output: Any) -> Tensor:
    return (output.logits if "logits" in output else output.last_hidden_state).flatten(0, 1)


def _called_whole(engine: Engine, batch: Batch) -> bool:
    """Whether logits come from the network's own head."""
    return batch.source_BT is not None or engine.language_head is None


def divergence(engine: Engine, batch: Batch, passes: tuple[Tensor, Tensor], *, by_row: bool = False) -> Tensor:
    """The weighted sum of J over what is learned in a batch; differentiable.

    Raises:
        ConfigurationError: the head is of a kind that there is no divergence for.
    """
    one, other = passes
    head = engine.member_of(batch).head
    if head is not None:
        return _of_head(head)(batch, one.float(), other.float())
    weights_N = _by_row(batch) if by_row else batch.weights_N
    one_N, other_N = one[batch.rows_N], other[batch.rows_N]
    if _called_whole(engine, batch):
        return (symmetric_kl(one_N, other_N) * weights_N).sum()
    assert engine.language_head is not None
    with engine.autocast():
        return passes_apart(engine.language_head, one_N, other_N, weights_N)


def _by_row(batch: Batch) -> Tensor:
    """Weights with which the targets of each row are a mean, [N]."""
    rows_N = batch.row_S[batch.owners_N]
    _, place_N, counts_R = rows_N.unique(return_inverse=True, return_counts=True)
    return 1.0 / counts_R[place_N].float()


Divergence = Callable[[Batch, Tensor, Tensor], Tensor]


def _of_head(head: Head) -> Divergence:
    found = HEADS.get(head.kind())
    if found is None:
        problem = f"there is no divergence for a head of the kind '{head.kind()}'"
        raise ConfigurationError(problem, where="training.aids.r_drop", allowed=sorted(HEADS), given=head.kind())
    return found


def _labels(batch: Batch, one_SC: Tensor, other_SC: Tensor) -> Tensor:
    wanted_S = batch.labels_S >= 0
    if batch.values_SK.shape[1]:
        wanted_S = wanted_S | ~batch.values_SK.isnan().all(dim=1)
    return symmetric_kl(one_SC[wanted_S], other_SC[wanted_S]).sum()


def _label_sets(batch: Batch, one_SC: Tensor, other_SC: Tensor) -> Tensor:
    """Each label is a coin of its own: J = (sigmoid(a) - sigmoid(b)) (a - b) / 2."""
    known_SC = _known(batch, one_SC)
    a, b = one_SC[known_SC], other_SC[known_SC]
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum() / 2


def _numbers(batch: Batch, one_SC: Tensor, other_SC: Tensor) -> Tensor:
    known_SC = _known(batch, one_SC)
    return (one_SC - other_SC)[known_SC].square().sum()


def _known(batch: Batch, outputs_SC: Tensor) -> Tensor:
    return ~batch.values_SK[:, : outputs_SC.shape[1]].isnan()


def _tags(batch: Batch, one_UC: Tensor, other_UC: Tensor) -> Tensor:
    wanted_U = batch.tags_U >= 0
    return symmetric_kl(one_UC[wanted_U], other_UC[wanted_U]).sum()


def _spans(batch: Batch, one_U2: Tensor, other_U2: Tensor) -> Tensor:
    """Of each segment the mean of J over where spans start and over where they end, among the tokens that may be either."""
    lengths = (batch.spans_S2[:, 1] - batch.spans_S2[:, 0]).tolist()
    parts = zip(one_U2.split(lengths), other_U2.split(lengths), batch.tags_U.split(lengths), strict=True)
    inside = ((a_L2[marks_L >= 0], b_L2[marks_L >= 0]) for a_L2, b_L2, marks_L in parts)
    found = [symmetric_kl(a_M2.T, b_M2.T).mean() for a_M2, b_M2 in inside if len(a_M2)]
    return torch.stack(found).sum() if found else one_U2.sum() * 0


def _best_answers(batch: Batch, one_N1: Tensor, other_N1: Tensor) -> Tensor:
    """Of each prompt J of which of its answers is the best: the softmax of their rewards."""
    sizes = batch.row_S[batch.owners_N.unique()].unique_consecutive(return_counts=True)[1].tolist()
    parts = zip(one_N1[:, 0].split(sizes), other_N1[:, 0].split(sizes), strict=True)
    return torch.stack([symmetric_kl(a_K[None], b_K[None])[0] for a_K, b_K in parts]).sum()


HEADS: dict[str, Divergence] = {
    "classification": _labels,
    "multi_label": _label_sets,
    "regression": _numbers,
    "token_classification": _tags,
    "question_answering": _spans,
    "reward": _best_answers,
}
"""What two passes of a head are compared by, by its kind."""


def drops(engine: Engine) -> bool:
    """Whether anything above what is frozen drops something while training: rates of dropout are read off the modules."""
    parameters = {name: one for member in engine.members.values() for name, one in member.parameters.items()}
    cut = lowest_trainable_block(engine.model, parameters)
    below = {id(module) for _, module in Prefix(engine.model, cut).modules()} if cut else set()
    heads = [member.head for member in engine.members.values() if member.head is not None]
    modules = [module for root in (engine.model.network, *heads) for module in root.modules() if id(module) not in below]
    return any(_rate(module) > 0 for module in modules)


def _rate(module: nn.Module) -> float:
    if isinstance(module, nn.Dropout):
        return module.p
    rates = (value for name, value in vars(module).items() if "drop" in name and isinstance(value, int | float))
    return max((float(rate) for rate in rates if not isinstance(rate, bool)), default=0.0)
