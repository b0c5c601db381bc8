"""The engine: one network, the tunings that stand on it, and the primitives that everything above is written on.

`forward_backward` adds gradients of a sum of losses; `step` divides once by the count of the whole optimizer step, clips and
updates. `hidden`, `language_loss`, `token_scores`, `label_logits` and `score` are what objectives and evaluations ask for.
One tuning is a bank of one: `members[0]`, which `parameters`, `optimizer`, `head` and `accumulated` speak of.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers.modeling_outputs import BaseModelOutput

from tunewright.core.errors import DivergedError
from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.engine import batch as layouts
from tunewright.engine import places as standing
from tunewright.engine.batch import Batch
from tunewright.engine.beside import Beside
from tunewright.engine.head import language_head
from tunewright.engine.loss import Loss, weighted_cross_entropy
from tunewright.engine.members import Accumulated, Member
from tunewright.engine.narrow import Narrow, recurring
from tunewright.engine.network import LayoutName, hold_in_bfloat16, pad_of, start_of, use_layout
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.prefix.frozen import FrozenPrefix
from tunewright.engine.scores import TokenScores, token_scores_of_logits
from tunewright.models import Model
from tunewright.models.heads import Head

Precision = Literal["float32", "bfloat16"]
LossFunction = Callable[["Engine", Batch], Loss]


class Probed(NamedTuple):
    """How a model takes trees; `tunewright.engine.probe` finds it out by comparing.

    Args:
        layout: how trees become tensors.
        position_offset: added to positions in the forest layout (RoBERTa counts from its padding index + 1).
        difference: how far packed was from alone, as a share of the largest value.
        own_head: the language head can be applied at targets only; False leaves it to the model's own forward pass.
        reason: why, in words.
        narrows: the last block may be given only the positions that are read.
    """

    layout: LayoutName = "forest"
    position_offset: int = 0
    difference: float = 0.0
    own_head: bool = True
    reason: str = ""
    narrows: bool = True


class Engine:
    """The primitives, for one model.

    Args:
        model: the base, with whatever a method attached to it.
        parameters: what is trained, by stable name; empty for evaluation only.
        probed: how the model takes trees.
        precision: what products run in; trained weights and sums stay float32.
        head: a task head on the body, when the objective reads one.
    """

    def __init__(
        self,
        model: Model,
        parameters: Mapping[str, Parameter] | None = None,
        probed: Probed = Probed(),  # noqa: B008 - an immutable value
        *,
        precision: Precision = "float32",
        head: Head | None = None,
    ) -> None:
        self.model, self.probed = model, probed
        self.layout: LayoutName = probed.layout
        self.position_offset = probed.position_offset
        self.precision: Precision = precision
        self.members: dict[int, Member] = {0: Member(dict(parameters or {}), head=head)}
        self.narrow = Narrow(model)
        self.prefix: FrozenPrefix | None = None
        self.beside: Mapping[str, Beside] = {}
        self._shared: tuple[Batch, dict[bool, Tensor]] | None = None
        self.language_head = language_head(model.network) if probed.own_head and model.kind == "decoder" else None
        self.device = next(model.network.parameters()).device
        self.use_precision(precision)
        use_layout(model, probed.layout)

    def use_precision(self, precision: Precision) -> None:
        """Run products in `precision` from now on; going to bfloat16 rounds the frozen weights for good."""
        self.precision = precision
        if precision == "bfloat16":
            hold_in_bfloat16(self.model)

    # ---- the bank ---------------------------------------------------------------------------------------------------------

    def join(self, slot: int, member: Member) -> None:
        """A tuning comes to the bank under the number that `model.lanes` gave it; the others are not disturbed.

        Raises:
            ValueError: the number is taken, or the layout cannot keep tunings apart.
        """
        if slot in self.members and self.members[slot].parameters:
            raise ValueError(f"tuning {slot} stands already")
        if self.layout == "sequence_to_sequence":
            raise ValueError("an encoder-decoder takes one tuning at a time")
        self.members[slot] = member
        if self.prefix is not None and not self.prefix.still_holds(member.parameters):
            self.prefix = None

    def leave(self, slot: int) -> Member:
        """A tuning leaves the bank with everything that is its own."""
        member = self.members.pop(slot)
        member.forget()
        return member

    @property
    def first(self) -> Member:
        """The member that a bank of one consists of."""
        return self.members[min(self.members)]

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What a bank of one trains."""
        return self.first.parameters

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of a bank of one."""
        return self.first.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Optimizer | None) -> None:
        """Give a bank of one its optimizer."""
        self.first.optimizer = optimizer

    @property
    def head(self) -> Head | None:
        """The head of a bank of one."""
        return self.first.head

    @property
    def accumulated(self) -> Accumulated:
        """What a bank of one has added up so far."""
        return self.first.accumulated

    def member_of(self, batch: Batch) -> Member:
        """The tuning that a batch, or a part of one, belongs to."""
        return self.first if batch.tuning is None else self.members[batch.tuning]

    # ---- trees to numbers -------------------------------------------------------------------------------------------------

    def collate(self, trees: Sequence[Tree]) -> Batch:
        """The trees as tensors in this engine's layout, behind the virtual tokens of their tunings."""
        pad, begins = pad_of(self.model), self.model.lanes.begins
        if any(tree.tuning != trees[0].tuning for tree in trees):
            trees = sorted(trees, key=lambda tree: tree.tuning)  # each tuning's tokens stand together: one lane
        edges = self.model.lanes.edges
        if self.layout == "forest":
            apart = standing.disagreeing(trees, edges)
            batch = layouts.forest(trees, begins, joined=self.model.kind == "encoder", apart=apart)
        elif self.layout == "padded":
            batch = layouts.padded(trees, pad, begins)
        else:
            batch = layouts.sequence_to_sequence(trees, pad, start_of(self.model), begins)
        batch = replace(batch, trees=tuple(trees))
        return (standing.placed(batch, trees, edges) if edges else batch).to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which products run in the engine's precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def hidden(self, batch: Batch) -> Tensor:
        """The last hidden state of every position, flat: [B*T, D]."""
        if batch.source_BT is not None:
            raise ValueError("an encoder-decoder gives logits, not hidden states for a shared head")
        return self._once(batch.whole, None)

    def hidden_at(self, batch: Batch, rows_N: Tensor) -> Tensor:
        """The last hidden states at flat positions `rows_N`, [N, D]; the last block computes little else."""
        if batch.source_BT is not None:
            raise ValueError("an encoder-decoder gives logits, not hidden states for a shared head")
        if self._shared is None:
            return self._body(batch.whole, rows_N)[rows_N]
        # The parts of a batch ask one after the other: computed once, at the targets of all of them.
        needed_N = batch.whole.rows_N if rows_N is batch.rows_N else None
        return self._once(batch.whole, needed_N)[rows_N]

    @contextlib.contextmanager
    def sharing(self, batch: Batch) -> Iterator[None]:
        """Inside, the hidden states of `batch` and its parts are computed once, whoever asks for them how often."""
        before = self._shared
        self._shared = before or (batch.whole, {})
        try:
            yield
        finally:
            self._shared = before

    def _once(self, batch: Batch, needed_N: Tensor | None) -> Tensor:
        if self._shared is None or self._shared[0] is not batch:
            return self._body(batch, needed_N)
        kept, narrowed = self._shared[1], needed_N is not None
        if narrowed not in kept:
            kept[narrowed] = self._body(batch, needed_N)
        return kept[narrowed]

    def _body(self, batch: Batch, needed_N: Tensor | None) -> Tensor:
        """One pass of the body, [B*T, D]; where only some positions are needed, the others hold nothing of meaning."""
        network: nn.Module = self.model.body
        if batch.layout is not None:
            positions = batch.positions_BT + self.position_offset
            given = {"input_ids": batch.tokens_BT, "position_ids": positions, "forest": batch.layout, **self._quiet()}
        else:
            given = {"input_ids": batch.tokens_BT, "attention_mask": batch.mask_BT, **self._quiet()}
        rows_N = recurring(needed_N, batch.tokens_BT.numel()) if needed_N is not None and self.probed.narrows else None

        def narrowed() -> BaseModelOutput:
            with self.narrow.to(rows_N):
                return network(**given)

        with self.model.lanes.during(batch.lanes, places=batch.places):
            output = narrowed() if self.prefix is None else self.prefix.hidden(batch, narrowed, lambda: network(**given))
        return output.last_hidden_state.flatten(0, 1)  # pyright: ignore[reportOptionalMemberAccess]

    def _quiet(self) -> dict[str, bool]:
        return {"use_cache": False} if self.model.kind != "encoder" else {}

    def target_logits(self, batch: Batch) -> Tensor:
        """[N, V] logits at the targets from the model's own head: encoder-decoders, and heads that ours does not reproduce."""
        network: nn.Module = self.model.network
        with self.model.lanes.during(batch.lanes, places=batch.places):
            if batch.source_BT is not None:
                output = network(
                    input_ids=batch.source_BT,
                    attention_mask=batch.source_mask_BT,
                    decoder_input_ids=batch.tokens_BT,
                    decoder_attention_mask=batch.mask_BT,
                    use_cache=False,
                )
            elif batch.layout is not None:
                positions = batch.positions_BT + self.position_offset
                output = network(input_ids=batch.tokens_BT, position_ids=positions, forest=batch.layout, use_cache=False)
            else:
                output = network(input_ids=batch.tokens_BT, attention_mask=batch.mask_BT, use_cache=False)
        return output.logits.flatten(0, 1)[batch.rows_N]

    def language_loss(self, batch: Batch, smoothing: float = 0.0) -> Loss:
        """The weighted cross-entropy at the batch's targets, with the share `smoothing` of every target spread over all tokens."""
        with self.autocast():
            if batch.source_BT is not None or self.language_head is None:
                return weighted_cross_entropy(self.target_logits(batch), batch.targets_N, batch.weights_N, smoothing)
            hidden_ND = self.hidden_at(batch, batch.rows_N)
            return self.language_head.cross_entropy(hidden_ND, batch.targets_N, batch.weights_N, smoothing)

    def label_logits(self, batch: Batch) -> Tensor:
        """What the task head gives, float32: [S, C] of a head on segments; [U, C] of one on tokens, for segments' own tokens."""
        head = self.member_of(batch).head
        if head is None:
            raise ValueError("this engine has no task head")
        with self.autocast():
            hidden_TD = self.hidden(batch)
        lengths_S = batch.spans_S2[:, 1] - batch.spans_S2[:, 0]
        ends_S = lengths_S.cumsum(0)
        starts_S = ends_S - lengths_S
        segment_T = torch.repeat_interleave(torch.arange(len(lengths_S), device=self.device), lengths_S)
        # Flat positions of the segments' own tokens, in order: padding falls away here, whatever the layout.
        inside_T = torch.arange(len(segment_T), device=self.device) - starts_S[segment_T] + batch.spans_S2[segment_T, 0]
        return head(hidden_TD[inside_T], segment_T, starts_S, ends_S - 1)

    def token_scores(self, batch: Batch, *, entropy: bool = False, top1: bool = False, temperature: float = 1.0) -> TokenScores:
        """log p of every target, [N] and differentiable; on demand the entropies and whether the target was the most probable."""
        with self.autocast():
            if batch.source_BT is not None or self.language_head is None:
                logits_NV = self.target_logits(batch)
                return token_scores_of_logits(logits_NV, batch.targets_N, entropy=entropy, top1=top1, temperature=temperature)
            hidden_ND = self.hidden_at(batch, batch.rows_N)
            return self.language_head.token_scores(hidden_ND, batch.targets_N, entropy=entropy, top1=top1, temperature=temperature)

    @torch.no_grad()
    def score(self, trees: Sequence[Tree]) -> tuple[Tensor, Batch]:
        """log p of every target, [N] float32, and the batch that says which segment owns which target."""
        batch = self.collate(trees)
        return self.token_scores(batch).log_probability_N, batch

    # ---- training ---------------------------------------------------------------------------------------------------------

    def forward_backward(self, batches: Sequence[Batch], loss: LossFunction | Mapping[int, LossFunction], seed: int = 0) -> None:
        """Add the gradients of the summed loss of `batches`.

        Args:
            batches: micro-batches of one optimizer step; how the step is cut into them does not change the result.
            loss: the objective: engine and batch to (total, count). For a bank: one for each tuning that takes part.
            seed: every micro-batch draws its dropout from (seed, its number), never from history.

        Raises:
            DivergedError: the loss of the only tuning is not finite; nothing of this step is kept. With several tunings, `step`
                raises it for the one concerned, and the others go on.
        """
        for number, batch in enumerate(batches):
            torch.manual_seed(derive(seed, "dropout", number))
            if isinstance(loss, Mapping):
                self._add_together(batch, loss)
            else:
                self._add(self.first, batch, loss(self, batch))
                if self.first.failure is not None:
                    failure = self.first.failure
                    self.forget()
                    raise failure

    def _add_together(self, batch: Batch, losses: Mapping[int, LossFunction]) -> None:
        """One forward and one backward pass for all tunings of a batch; each loss sees its own part."""
        with self.sharing(batch):
            parts = {slot: batch.part(slot) for slot in losses if batch.has(slot)}
            found = {slot: losses[slot](self, part) for slot, part in parts.items()}
        # A loss that is not finite stays out of the sum: the tunings share no parameter, so it is its own tuning's affair alone.
        for slot, value in found.items():
            self._note(self.members[slot], parts[slot], value)
        finite = [value.total for slot, value in found.items() if self.members[slot].failure is None]
        if finite:
            torch.stack(finite).sum().backward()

    def _add(self, member: Member, batch: Batch, loss: Loss) -> None:
        self._note(member, batch, loss)
        if member.failure is None:
            loss.total.backward()

    def _note(self, member: Member, batch: Batch, loss: Loss) -> None:
        total = float(loss.total.detach())
        if not math.isfinite(total):
            member.failure = DivergedError(f"the loss is {total}, not a finite number")
        member.accumulated.total += total
        member.accumulated.count += float(loss.count)
        member.accumulated.tokens += batch.tokens

    def step(self, learning_rate: float, clip: float | None = 1.0, slot: int | None = None) -> tuple[float, float, Accumulated]:
        """Divide the gradients by the count, clip their norm, update; returns (mean loss, norm before clipping, sums).

        Args:
            slot: which tuning of a bank makes its step; the only one when not given.

        Raises:
            DivergedError: the loss or the gradients are not finite; the parameters are as before.
        """
        member = self.first if slot is None else self.members[slot]
        return member.update(learning_rate, clip)

    def forget(self) -> None:
        """Drop what has been added up for a step that will not be made."""
        for member in self.members.values():
            member.forget()

    @torch.no_grad()
    def put_back(self, values: Mapping[str, Tensor]) -> None:
        """Set the trained tensors to `values` (the best ones, those of a checkpoint)."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
        if self.first.restored is not None:
            self.first.restored()

    def check_finite(self) -> None:
        """Raise `DivergedError` naming the first trained tensor that holds a number that is not finite."""
        for name, parameter in self.parameters.items():
            if not torch.isfinite(parameter).all():
                raise DivergedError(f"the trained tensor '{name}' holds numbers that are not finite")

    def training(self) -> None:
        """Dropout from now on, in the network and in every head; a frozen prefix runs its own blocks without it all the same."""
        for module in self._modules():
            module.train()

    def _modules(self) -> list[nn.Module]:
        return [self.model.network, *(member.head for member in self.members.values() if member.head is not None)]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No dropout and no gradients inside."""
        modules = self._modules()
        before = [module.training for module in modules]
        for module in modules:
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.train(training)
