"""Divergences of a language head: TRL's numbers, torch's gradients of the plain formulas, chunks, and that no [N, V] stands whole.

TRL's numbers: TRL 1.16 (`GKDTrainer.generalized_jsd_loss`) in float64, the mean over the first and the last of three positions, and
two of its derivatives.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div
from torch.utils._python_dispatch import TorchDispatchMode

from tunewright.engine import divergence as divergences
from tunewright.engine import loss
from tunewright.engine.divergence import Cost, Goal, Top, aligned, divergence, divergence_of_logits, most_probable
from tunewright.engine.head import LanguageHead

BY_TRL = (  # beta, temperature, loss, its derivative by logit 1 of position 0 and by logit 5 of position 2
    (0.0, 1.0, 1.4625714714, 0.1584998023, -0.0740757129),
    (0.0, 2.0, 0.4703093674, 0.0429235309, -0.0219484388),
    (0.1, 1.0, 0.1186375275, 0.0105305183, -0.0065277028),
    (0.1, 2.0, 0.0413528113, 0.0035912987, -0.0020150893),
    (0.5, 1.0, 0.3036290181, 0.0197922960, -0.0164787347),
    (0.5, 2.0, 0.1128025441, 0.0084543740, -0.0059273103),
    (0.9, 1.0, 0.1310922690, 0.0047413255, -0.0065713475),
    (0.9, 2.0, 0.0442121952, 0.0025982348, -0.0024025187),
    (1.0, 1.0, 1.7521846719, -0.0230297034, -0.0855183558),
    (1.0, 2.0, 0.5156482531, 0.0256570212, -0.0283406988),
)


@pytest.mark.parametrize(("beta", "temperature", "mean", "one", "other"), BY_TRL)
def test_numbers_are_those_of_trl(beta: float, temperature: float, mean: float, one: float, other: float):
    places = torch.arange(21, dtype=torch.float64).view(3, 7)
    student, teacher = (2 * torch.sin(places)).requires_grad_(), 2 * torch.cos(1.7 * places)
    weights = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    goal = Goal(torch.tensor([1, 2, 1]), weights, lambda part: teacher[part], Cost(beta, temperature))
    found = divergence_of_logits(student, goal).loss(weights)
    (slopes,) = torch.autograd.grad(found.total / found.count, [student])
    assert float((found.total / found.count).detach()) == pytest.approx(mean, abs=1e-9)
    assert (float(slopes[0, 1]), float(slopes[2, 5])) == pytest.approx((one, other), abs=1e-9)
    assert not slopes[1].any()


def test_numbers_of_the_docstring():
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    goals = [Goal(torch.tensor([0]), torch.ones(1), lambda part: p[part], Cost(beta)) for beta in (0.0, 1.0, 0.5)]
    # 0.5 ln 2 + 0.5 ln(2/3); 0.25 ln 0.5 + 0.75 ln 1.5; and with m = (0.375, 0.625) half of each one's distance to it
    by_hand = [
        0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75),
        0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5),
        0.5 * (0.5 * math.log(0.5 / 0.375) + 0.5 * math.log(0.5 / 0.625))
        + 0.5 * (0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.625)),
    ]
    assert by_hand == pytest.approx([0.1438, 0.1308, 0.0338], abs=5e-5)
    assert [float(divergence_of_logits(q, goal).total) for goal in goals] == pytest.approx(by_hand, abs=1e-6)


def outcomes(logits: Tensor, top: Top, temperature: float) -> Tensor:
    """The student's log-probabilities of what is compared under a top, by the definition."""
    log_q = (logits / temperature).log_softmax(-1)
    picked = log_q.gather(1, top.ids_NK)
    if top.log_rest_N is None:
        return picked.log_softmax(-1)
    return torch.cat([picked, torch.log1p(-picked.exp().sum(1, keepdim=True))], 1)


def plain(logits: Tensor, teacher: Tensor, goal: Goal) -> Tensor:
    """The weighted sum of costs by the definitions, differentiable by autograd."""
    cost = goal.cost
    if isinstance(goal.teacher, Top):
        log_q = outcomes(logits, goal.teacher, cost.temperature)
        log_p = outcomes(teacher, goal.teacher, cost.temperature)
    else:
        log_q, log_p = ((one / cost.temperature).log_softmax(-1) for one in (logits, teacher))
    if cost.beta == 0:
        found = kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    elif cost.beta == 1:
        found = kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
    else:
        log_m = (cost.beta * log_p.exp() + (1 - cost.beta) * log_q.exp()).log()
        found = cost.beta * (log_p.exp() * (log_p - log_m)).sum(1) + (1 - cost.beta) * (log_q.exp() * (log_q - log_m)).sum(1)
    hard = cross_entropy(logits, goal.targets_N, reduction="none")
    return ((cost.factor * found + cost.hard * hard) * goal.weights_N).sum()


def case(targets: int, vocabulary: int = 23) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(targets)
    hidden, weight, bias, teacher = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((targets, 6), (vocabulary, 6), (vocabulary,), (targets, vocabulary))
    )
    chosen = torch.randint(0, vocabulary, (targets,), generator=generator)
    weights = torch.rand(targets, generator=generator, dtype=torch.float64)
    weights[::4] = 0
    return hidden, weight, bias, teacher, chosen, weights


def head_of(weight: Tensor, bias: Tensor | None, **changed: float) -> LanguageHead:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return LanguageHead(linear, **changed)


@pytest.mark.parametrize("cost", [Cost(), Cost(1.0, 2.0, 4.0), Cost(0.3, 0.7, 0.8, 0.2), Cost(0.5, 1.0, 0.5, 0.5)])
@pytest.mark.parametrize("kept", [None, (4, True), (4, False), (1, True)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_value_and_gradients_are_those_of_torch(cost: Cost, kept: tuple[int, bool] | None, wrapped: bool, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)  # 16 targets a chunk, the least there is
    monkeypatch.setattr(loss, "BLOCK_BYTES", 23 * 4 * 3)  # and three of them at once
    hidden, weight, bias, teacher, chosen, weights = case(37)
    head = head_of(weight, bias, scale=0.5, cap=3.0)
    said = (lambda part: teacher[part]) if kept is None else most_probable(teacher, kept[0], cost.temperature, rest=kept[1])
    goal = Goal(chosen, weights, said, cost)
    inputs = [hidden.requires_grad_(), head.linear.weight, head.linear.bias]
    if wrapped:  # a head that is no plain product is left to autograd, chunk by chunk
        head.linear.register_forward_hook(lambda module, given, made: made)
    measured = divergence(head, hidden, goal)
    wanted = plain(head.logits(hidden), teacher, goal)
    torch.testing.assert_close(measured.total, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close((measured.costs_N * weights).sum(), wanted.detach(), atol=1e-6, rtol=1e-6)
    ours, theirs = torch.autograd.grad(measured.total * 1.7, inputs), torch.autograd.grad(wanted * 1.7, inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_none_is_made_where_none_is_wanted():
    hidden, weight, _, teacher, chosen, weights = case(5)
    head = head_of(weight, None)
    head.linear.weight.requires_grad_(False)
    goal = Goal(chosen, weights, lambda part: teacher[part], Cost())
    divergence(head, hidden.requires_grad_(), goal).total.backward()
    assert hidden.grad is not None
    assert head.linear.weight.grad is None
    with torch.no_grad():
        assert not divergence(head, hidden, goal).total.requires_grad


def test_the_divergence_of_a_teacher_from_itself_is_nothing():
    teacher = case(9)[3].requires_grad_()
    for beta in (0.0, 0.4, 1.0):
        for said in (lambda part: teacher.detach()[part], most_probable(teacher.detach(), 5, 1.0, rest=True)):
            goal = Goal(torch.zeros(9, dtype=torch.long), torch.ones(9), said, Cost(beta))
            found = divergence_of_logits(teacher, goal)
            (slopes,) = torch.autograd.grad(found.total, [teacher])
            assert float(found.costs_N.detach().abs().max()) < 1e-6
            assert float(slopes.abs().max()) < 1e-6


def test_a_sure_teacher_makes_no_nan():
    teacher, student = torch.full((2, 6), -200.0), torch.zeros(2, 6)
    teacher[:, 1], student[:, 2] = 200.0, 300.0
    for beta in (0.0, 0.5, 1.0):
        for said in (
            lambda part: teacher[part],
            most_probable(teacher, 2, 1.0, rest=True),
            most_probable(teacher, 2, 1.0, rest=False),
        ):
            logits = student.clone().requires_grad_()
            found = divergence_of_logits(logits, Goal(torch.tensor([0, 1]), torch.ones(2), said, Cost(beta, 1.0, 1.0, 0.1)))
            (slopes,) = torch.autograd.grad(found.total, [logits])
            assert bool(found.total.isfinite())
            assert bool(slopes.isfinite().all())


def test_together_is_a_lower_bound_that_grows_with_what_is_kept():
    student, teacher = case(40)[3], case(41)[3][:40]
    chosen, weights = torch.zeros(40, dtype=torch.long), torch.ones(40, dtype=torch.float64)
    values = [
        float(divergence_of_logits(student, Goal(chosen, weights, most_probable(teacher, count, 1.0, rest=True), Cost())).total)
        for count in (1, 3, 10, 22)
    ]
    whole = float(divergence_of_logits(student, Goal(chosen, weights, lambda part: teacher[part], Cost())).total)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(whole, rel=1e-5)  # one token is left, and an outcome of its own


@pytest.mark.parametrize("count", [0, 6, 7])
def test_no_more_than_the_vocabulary_is_kept(count: int):
    with pytest.raises(ValueError, match=f"{count} of 6 tokens"):
        most_probable(torch.zeros(2, 6), count, 1.0, rest=True)


def test_unused_rows_of_an_embedding_may_differ():
    logits = torch.randn(3, 5)
    assert aligned(logits, 4).shape == (3, 4)
    wider = aligned(logits, 8)
    torch.testing.assert_close(wider.softmax(1)[:, :5], logits.softmax(1))
    assert not wider.softmax(1)[:, 5:].any()


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that any operation made."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize("hooked", [False, True])
def test_targets_by_vocabulary_never_stand_whole(hooked: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)
    hidden, weight, _, _, chosen, weights = case(200, vocabulary=50)
    head, teaching = head_of(weight, None), head_of(weight + 1, None)
    if hooked:
        head.linear.register_forward_hook(lambda module, given, made: made)
    states = hidden.detach()
    goal = Goal(chosen, weights, lambda part: teaching.logits(states[part]).detach(), Cost(0.5))
    with Largest() as largest:
        divergence(head, hidden.requires_grad_(), goal).total.backward()
    assert largest.numbers < 200 * 50 / 4


def test_the_parts_of_a_goal_are_those_of_its_targets():
    *_, teacher, chosen, weights = case(8)
    whole = Goal(chosen, weights, most_probable(teacher, 3, 1.0, rest=True), Cost())
    part = whole.at(slice(2, 5))
    assert isinstance(part.teacher, Top)
    torch.testing.assert_close(part.teacher.ids_NK, teacher[2:5].topk(3).indices)
    assert divergences.divergence_of_logits(teacher[2:5], part).costs_N.shape == (3,)
