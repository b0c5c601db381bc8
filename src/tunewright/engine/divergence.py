"""How far a language head's distributions are from given ones, without ever building `[tokens, vocabulary]` whole.

With q = softmax(l / T) of the student at a target, p that of a teacher, and a mixture m = beta p + (1 - beta) q:

    D = KL(p || q)                                     beta = 0, forward
    D = KL(q || p)                                     beta = 1, reverse
    D = beta KL(p || m) + (1 - beta) KL(q || m)        between: generalised Jensen-Shannon
    dD / dl_v = (q_v g_v - q_v sum_u q_u g_u) / T,     g = dD / dq = -p / q,  log(q / p)  or  (1 - beta) log(q / m)

A target costs `factor` D + `hard` (-log softmax(l)[y]). As in `loss`, gradients are made in the forward pass, chunk by chunk: the
student's and the teacher's logits of a chunk live only while they are used.

Source: Agarwal et al., "GKD", arXiv 2306.13649, equation 1, with the ends as TRL defines them; Hinton et al., arXiv 1503.02531.

Letters: N targets, V vocabulary, D width, K tokens of a teacher that are kept, O outcomes that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tunewright.engine.head import LanguageHead
from tunewright.engine.loss import Gradients, Loss, Shape, blocks, chunk_rows, chunks, product_dtype, subtract_one_hot, wanting
from tunewright.engine.products import multiply
from tunewright.engine.scores import LOWEST


class Cost(NamedTuple):
    """What a target costs: `factor` times the divergence, and `hard` times -log p(target).

    Args:
        beta: 0 is the forward divergence, 1 the reverse one, between them Jensen and Shannon's.
        temperature: both logits are divided by it for the divergence; never for the hard part.
    """

    beta: float = 0.0
    temperature: float = 1.0
    factor: float = 1.0
    hard: float = 0.0


class Top(NamedTuple):
    """The K most probable tokens of a teacher at each target, at the temperature of the cost.

    Args:
        ids_NK: the tokens; log_p_NK: their log-probabilities among all tokens.
        log_rest_N: the logarithm of what all others have together, which is then one more outcome, as it is for the student; None
            compares the K tokens alone, both distributions divided by their own sum over them.
    """

    ids_NK: Tensor
    log_p_NK: Tensor
    log_rest_N: Tensor | None = None

    def at(self, part: slice) -> Top:
        """Those of some of the targets."""
        return Top(self.ids_NK[part], self.log_p_NK[part], None if self.log_rest_N is None else self.log_rest_N[part])


Teacher = Callable[[slice], Tensor] | Top
"""What is learned: a function that gives the teacher's logits [n, V] of a stretch of targets, or its most probable tokens."""


class Goal(NamedTuple):
    """What N targets are learned as: the tokens that stand there [N], how much each counts [N, float32], and the teacher."""

    targets_N: Tensor
    weights_N: Tensor
    teacher: Teacher
    cost: Cost

    def at(self, part: slice) -> Goal:
        """The same for some of the targets; a function is asked at once."""
        given = self.teacher
        if isinstance(given, Top):
            return Goal(self.targets_N[part], self.weights_N[part], given.at(part), self.cost)
        logits_NV = given(part)
        return Goal(self.targets_N[part], self.weights_N[part], lambda inner: logits_NV[inner], self.cost)


def most_probable(logits_NV: Tensor, count: int, temperature: float, *, rest: bool) -> Top:
    """The `count` most probable tokens, with what the others have together where `rest` asks for it.

    Raises:
        ValueError: there are no others.
    """
    if not 0 < count < logits_NV.shape[1]:
        raise ValueError(f"{count} of {logits_NV.shape[1]} tokens were asked for")
    log_p_NV = torch.log_softmax(logits_NV.float() / temperature, dim=1)
    log_p_NK, ids_NK = log_p_NV.topk(count, dim=1)
    if not rest:
        return Top(ids_NK, log_p_NK)
    others_NV = log_p_NV.scatter_(1, ids_NK, -math.inf)  # 1 - sum would lose what is left beside a sure token
    return Top(ids_NK, log_p_NK, others_NV.logsumexp(dim=1).clamp_min_(LOWEST))


def aligned(logits_NV: Tensor, vocabulary: int) -> Tensor:
    """Logits with as many columns as the student has: rows of an embedding that no token uses differ between sizes of a family."""
    missing = vocabulary - logits_NV.shape[1]
    return torch.nn.functional.pad(logits_NV, (0, missing), value=LOWEST) if missing > 0 else logits_NV[:, :vocabulary]


def _compared(log_p_NO: Tensor, log_q_NO: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """D of each row, [N], and q dD/dq, [N, O]."""
    if beta == 0:
        p_NO = log_p_NO.exp()
        return (p_NO * (log_p_NO - log_q_NO)).sum(1), p_NO.neg_()
    q_NO = log_q_NO.exp()
    if beta == 1:
        pull_NO = (log_q_NO - log_p_NO).mul_(q_NO)
        return pull_NO.sum(1), pull_NO
    log_m_NO = torch.logaddexp(log_q_NO + math.log1p(-beta), log_p_NO + math.log(beta))
    pull_NO = (log_q_NO - log_m_NO).mul_(q_NO).mul_(1 - beta)
    return pull_NO.sum(1) + beta * (log_p_NO.exp() * (log_p_NO - log_m_NO)).sum(1), pull_NO


def _of_all(log_q_NV: Tensor, teacher_NV: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """D, and T dD / dl, from the teacher's logits."""
    log_p_NV = torch.log_softmax(teacher_NV.to(log_q_NV.dtype) / cost.temperature, dim=1).clamp_min_(LOWEST)
    found_N, pull_NV = _compared(log_p_NV, log_q_NV, cost.beta)
    return found_N, pull_NV.addcmul_(log_q_NV.exp(), pull_NV.sum(1, keepdim=True), value=-1)


def _of_top(log_q_NV: Tensor, top: Top, cost: Cost) -> tuple[Tensor, Tensor]:
    """D, and T dD / dl, from the teacher's most probable tokens."""
    log_p_NK, log_q_NK = top.log_p_NK.to(log_q_NV.dtype), log_q_NV.gather(1, top.ids_NK)
    if top.log_rest_N is None:
        log_q_NK = log_q_NK.log_softmax(dim=1)
        found_N, pull_NK = _compared(log_p_NK.log_softmax(dim=1), log_q_NK, cost.beta)
        slope_NK = pull_NK - log_q_NK.exp() * pull_NK.sum(1, keepdim=True)
        return found_N, torch.zeros_like(log_q_NV).scatter_(1, top.ids_NK, slope_NK)
    others_NV = log_q_NV.scatter(1, top.ids_NK, -math.inf)
    log_other_N1 = others_NV.logsumexp(dim=1, keepdim=True).clamp_min(LOWEST)
    log_p_NO = torch.cat([log_p_NK, top.log_rest_N.to(log_p_NK.dtype)[:, None]], dim=1)
    found_N, pull_NO = _compared(log_p_NO, torch.cat([log_q_NK, log_other_N1], dim=1), cost.beta)
    # What moves the others together is shared among them as they are probable.
    slope_NV = (others_NV - log_other_N1).exp_().mul_(pull_NO[:, -1:])
    slope_NV.scatter_(1, top.ids_NK, pull_NO[:, :-1])
    return found_N, slope_NV.addcmul_(log_q_NV.exp(), pull_NO.sum(1, keepdim=True), value=-1)


def _cost_and_slope(logits_NV: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    """What each target costs, [N], and its slope in the logits, [N, V], of a block whose teacher is known."""
    cost, teacher = goal.cost, goal.teacher
    log_q_NV = torch.log_softmax(logits_NV / cost.temperature, dim=1).clamp_min_(LOWEST)
    if isinstance(teacher, Top):
        found_N, slope_NV = _of_top(log_q_NV, teacher, cost)
    else:
        found_N, slope_NV = _of_all(log_q_NV, aligned(teacher(slice(None)), logits_NV.shape[1]), cost)
    found_N, slope_NV = found_N * cost.factor, slope_NV.mul_(cost.factor / cost.temperature)
    if cost.hard:
        log_q_NV = log_q_NV if cost.temperature == 1 else torch.log_softmax(logits_NV, dim=1)
        index_N1 = goal.targets_N[:, None]
        found_N = found_N - cost.hard * log_q_NV.gather(1, index_N1)[:, 0]
        certain_NV = log_q_NV.exp()
        subtract_one_hot(certain_NV, index_N1)
        slope_NV.add_(certain_NV, alpha=cost.hard)
    return found_N, slope_NV


def _to_slopes(z_NV: Tensor, bias_V: Tensor | None, goal: Goal, shape: Shape) -> Tensor:
    """Write d cost / d z of a chunk (without the shape's slope and the weights) over z; returns what each target costs, [N]."""
    work = torch.promote_types(z_NV.dtype, torch.float32)
    found = []
    for rows in blocks(z_NV):
        block_NV = z_NV[rows].to(work) if bias_V is None else z_NV[rows].to(work) + bias_V
        logits_NV, bend_NV = shape.bent(block_NV)
        found_N, slope_NV = _cost_and_slope(logits_NV, goal.at(rows))
        found.append(found_N)
        z_NV[rows] = slope_NV if bend_NV is None else slope_NV.mul_(bend_NV)
    return torch.cat(found)


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, goal: Goal, shape: Shape
    ) -> tuple[Tensor, Tensor]:
        low = product_dtype(hidden_ND)
        costs = []
        device = hidden_ND.device.type
        needed = context.needs_input_grad[:3]
        made = Gradients(hidden_ND, weight_VD, bias_V, needed, goal.weights_N * shape.slope)
        own_ND, own_VD = hidden_ND.to(low), weight_VD.to(low)
        for part in chunks(len(hidden_ND), chunk_rows(len(weight_VD))):
            here = goal.at(part)  # the teacher runs as it wants to, ours in the type that was decided
            with torch.autocast(device, enabled=False):
                z_NV = multiply(own_ND[part], own_VD.T)
                costs.append(_to_slopes(z_NV, bias_V, here, shape))
                if any(needed):
                    made.add(part, z_NV, own_ND[part], own_VD)
        costs_N = torch.cat(costs) if costs else goal.weights_N
        context.gradients = made.done()
        context.mark_non_differentiable(costs_N)
        return (costs_N * goal.weights_N).sum(), costs_N

    @staticmethod
    @once_differentiable
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scaled = (None if gradient is None else gradient * grads[0].to(gradient.dtype) for gradient in context.gradients)
        return (*scaled, None, None)


class _LogitDivergence(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits_NV: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
        slope_NV = logits_NV.clone()
        with torch.autocast(logits_NV.device.type, enabled=False):
            costs_N = _to_slopes(slope_NV, None, goal, Shape())
        context.save_for_backward(slope_NV, goal.weights_N)
        context.mark_non_differentiable(costs_N)
        return (costs_N * goal.weights_N).sum(), costs_N

    @staticmethod
    @once_differentiable
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        slope_NV, weights_N = context.saved_tensors
        return slope_NV * (weights_N * grads[0]).to(slope_NV.dtype)[:, None], None


class Measured(NamedTuple):
    """The divergence of a batch: the weighted sum over its targets, differentiable once, and what each one costs, unweighted."""

    total: Tensor
    costs_N: Tensor

    def loss(self, weights_N: Tensor) -> Loss:
        """As the loss of a batch."""
        return Loss(self.total, weights_N.sum())


def divergence_of_logits(logits_NV: Tensor, goal: Goal) -> Measured:
    """The divergence where logits exist already: encoder-decoders, and heads that ours does not reproduce."""
    return Measured(*_LogitDivergence.apply(logits_NV, goal))


def divergence(head: LanguageHead, hidden_ND: Tensor, goal: Goal) -> Measured:
    """The divergence of a language head at N hidden states, in chunks; differentiable once."""
    shape, plain = Shape(head.scale, head.cap), head.plain()
    if plain is not None:
        hidden_ND, weight_VD, bias_V = wanting(hidden_ND, plain.weight, plain.bias)
        return Measured(*_LinearDivergence.apply(hidden_ND, weight_VD, bias_V, goal, shape))

    def measured(part_ND: Tensor, part: slice) -> Measured:
        return divergence_of_logits(head.logits(part_ND), goal.at(part))  # the teacher is asked again rather than kept

    step = chunk_rows(head.linear(hidden_ND[:1]).shape[-1])
    parts = [checkpoint(measured, hidden_ND[part], part, use_reentrant=False) for part in chunks(len(hidden_ND), step)]
    return Measured(torch.stack([part.total for part in parts]).sum(), torch.cat([part.costs_N for part in parts]))
