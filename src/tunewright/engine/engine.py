"""The engine: one frozen or trainable network, its trainable parameters, and the primitives that everything above is written on.

`forward_backward` adds gradients of a sum of losses; `step` divides once by the count of the whole optimizer step, clips and
updates. `hidden`, `language_loss`, `label_logits` and `score` are what objectives and evaluations ask for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from tunewright.core.errors import DivergedError
from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.engine import batch as layouts
from tunewright.engine.attention import FOREST
from tunewright.engine.batch import Batch
from tunewright.engine.head import language_head
from tunewright.engine.loss import Loss, weighted_cross_entropy
from tunewright.engine.optimizers import Optimizer
from tunewright.models import Model
from tunewright.models.heads import ClassificationHead

Precision = Literal["float32", "bfloat16"]
LayoutName = Literal["forest", "padded", "sequence_to_sequence"]


@dataclass
class Accumulated:
    """What the micro-batches of one optimizer step have added up to so far."""

    total: float = 0.0
    count: float = 0.0
    tokens: int = 0


class Probed(NamedTuple):
    """How a model takes trees; `tunewright.engine.probe` finds it out by comparing.

    Args:
        layout: how trees become tensors.
        position_offset: added to positions in the forest layout (RoBERTa counts from its padding index + 1).
        difference: how far packed was from alone, as a share of the largest value.
        own_head: the language head can be applied at targets only; False leaves it to the model's own forward pass.
        reason: why, in words.
    """

    layout: LayoutName = "forest"
    position_offset: int = 0
    difference: float = 0.0
    own_head: bool = True
    reason: str = ""


class Engine:
    """The primitives, for one model.

    Args:
        model: the base, with whatever a method attached to it.
        parameters: what is trained, by stable name; empty for evaluation only.
        probed: how the model takes trees.
        precision: what products run in; trained weights and sums stay float32.
        head: a classification head on the body, when the objective reads one.
    """

    def __init__(
        self,
        model: Model,
        parameters: Mapping[str, Parameter] | None = None,
        probed: Probed = Probed(),  # noqa: B008 - an immutable value
        *,
        precision: Precision = "float32",
        head: ClassificationHead | None = None,
    ) -> None:
        self.model, self.probed, self.head = model, probed, head
        self.layout: LayoutName = probed.layout
        self.position_offset = probed.position_offset
        self.precision: Precision = precision
        self.parameters: dict[str, Parameter] = dict(parameters or {})
        self.language_head = language_head(model.network) if probed.own_head and model.kind == "decoder" else None
        self.optimizer: Optimizer | None = None
        self.accumulated = Accumulated()
        self.device = next(model.network.parameters()).device
        self.use_precision(precision)
        use_layout(model, probed.layout)

    def use_precision(self, precision: Precision) -> None:
        """Run products in `precision` from now on; going to bfloat16 rounds the frozen weights for good."""
        self.precision = precision
        if precision == "bfloat16":
            hold_in_bfloat16(self.model)

    # ---- trees to numbers -------------------------------------------------------------------------------------------------

    def collate(self, trees: Sequence[Tree]) -> Batch:
        """The trees as tensors in this engine's layout."""
        pad = pad_of(self.model)
        if self.layout == "forest":
            return layouts.forest(trees).to(self.device)
        if self.layout == "padded":
            return layouts.padded(trees, pad).to(self.device)
        return layouts.sequence_to_sequence(trees, pad, start_of(self.model)).to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which products run in the engine's precision."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def hidden(self, batch: Batch) -> Tensor:
        """The last hidden state of every position, flat: [B*T, D]."""
        if batch.source_BT is not None:
            raise ValueError("an encoder-decoder gives logits, not hidden states for a shared head")
        network: nn.Module = self.model.body
        if batch.layout is not None:
            positions = batch.positions_BT + self.position_offset
            output = network(input_ids=batch.tokens_BT, position_ids=positions, forest=batch.layout, **self._quiet())
        else:
            output = network(input_ids=batch.tokens_BT, attention_mask=batch.mask_BT, **self._quiet())
        return output.last_hidden_state.flatten(0, 1)

    def _quiet(self) -> dict[str, bool]:
        return {"use_cache": False} if self.model.kind != "encoder" else {}

    def target_logits(self, batch: Batch) -> Tensor:
        """[N, V] logits at the targets from the model's own head: encoder-decoders, and heads that ours does not reproduce."""
        network: nn.Module = self.model.network
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

    def language_loss(self, batch: Batch) -> Loss:
        """The weighted cross-entropy at the batch's targets."""
        with self.autocast():
            if batch.source_BT is not None or self.language_head is None:
                return weighted_cross_entropy(self.target_logits(batch), batch.targets_N, batch.weights_N)
            hidden_ND = self.hidden(batch)[batch.rows_N]
            return self.language_head.cross_entropy(hidden_ND, batch.targets_N, batch.weights_N)

    def label_logits(self, batch: Batch) -> Tensor:
        """[S, C] float32 class logits of every segment, from the classification head."""
        if self.head is None:
            raise ValueError("this engine has no classification head")
        with self.autocast():
            hidden_TD = self.hidden(batch)
        lengths_S = batch.spans_S2[:, 1] - batch.spans_S2[:, 0]
        ends_S = lengths_S.cumsum(0)
        starts_S = ends_S - lengths_S
        segment_T = torch.repeat_interleave(torch.arange(len(lengths_S), device=self.device), lengths_S)
        # Flat positions of the segments' own tokens, in order: padding falls away here, whatever the layout.
        inside_T = torch.arange(len(segment_T), device=self.device) - starts_S[segment_T] + batch.spans_S2[segment_T, 0]
        return self.head(hidden_TD[inside_T], segment_T, starts_S, ends_S - 1)

    @torch.no_grad()
    def score(self, trees: Sequence[Tree]) -> tuple[Tensor, Batch]:
        """log p of every target, [N] float32, and the batch that says which segment owns which target."""
        batch = self.collate(trees)
        with self.autocast():
            if batch.source_BT is not None or self.language_head is None:
                logits_NV = self.target_logits(batch).float()
                picked = logits_NV.gather(1, batch.targets_N[:, None])[:, 0]
                return picked - logits_NV.logsumexp(dim=1), batch
            hidden_ND = self.hidden(batch)[batch.rows_N]
            return self.language_head.log_probabilities(hidden_ND, batch.targets_N), batch

    # ---- training ---------------------------------------------------------------------------------------------------------

    def forward_backward(self, batches: Sequence[Batch], loss: Callable[[Engine, Batch], Loss], seed: int = 0) -> None:
        """Add the gradients of the summed loss of `batches`.

        Args:
            batches: micro-batches of one optimizer step; how the step is cut into them does not change the result.
            loss: the objective: engine and batch to (total, count).
            seed: every micro-batch draws its dropout from (seed, its number), never from history.

        Raises:
            DivergedError: the loss is not finite; nothing of this step is kept.
        """
        for number, batch in enumerate(batches):
            torch.manual_seed(derive(seed, "dropout", number))
            total, count = loss(self, batch)
            if not torch.isfinite(total):
                self.forget()
                raise DivergedError(f"the loss is {float(total.detach())}, not a finite number")
            total.backward()
            self.accumulated.total += float(total.detach())
            self.accumulated.count += float(count)
            self.accumulated.tokens += batch.tokens

    def step(self, learning_rate: float, clip: float | None = 1.0) -> tuple[float, float, Accumulated]:
        """Divide the gradients by the count, clip their norm, update; returns (mean loss, norm before clipping, sums).

        Raises:
            DivergedError: the gradients are not finite; the parameters are as before.
        """
        if self.optimizer is None:
            raise ValueError("this engine was made for evaluation: it has no optimizer")
        done, self.accumulated = self.accumulated, Accumulated()
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        if not gradients or done.count <= 0:
            self.forget()
            raise DivergedError("no trainable parameter received a gradient: there was no target in the whole step")
        torch._foreach_div_(gradients, done.count)  # pyright: ignore[reportPrivateImportUsage]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            self.forget()
            raise DivergedError(f"the gradient norm is {float(norm)}, not a finite number")
        if clip is not None and float(norm) > clip:
            torch._foreach_mul_(gradients, clip / (float(norm) + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        self.optimizer.update(learning_rate)
        return done.total / done.count, float(norm), done

    def forget(self) -> None:
        """Drop what has been added up for a step that will not be made."""
        self.accumulated = Accumulated()
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def put_back(self, values: Mapping[str, Tensor]) -> None:
        """Set the trained tensors to `values` (the best ones, those of a checkpoint)."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def check_finite(self) -> None:
        """Raise `DivergedError` naming the first trained tensor that holds a number that is not finite."""
        for name, parameter in self.parameters.items():
            if not torch.isfinite(parameter).all():
                raise DivergedError(f"the trained tensor '{name}' holds numbers that are not finite")

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """No dropout and no gradients inside."""
        modules = [self.model.network, *([self.head] if self.head is not None else [])]
        before = [module.training for module in modules]
        for module in modules:
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.train(training)


def pad_of(model: Model) -> int:
    """The id that fills up shorter rows; it is masked out wherever it stands, so any id serves."""
    pad = model.tokenizer.pad_token_id
    return pad if isinstance(pad, int) else 0


def start_of(model: Model) -> int:
    """The id that an encoder-decoder's decoder begins with."""
    start = model.network.config.decoder_start_token_id
    return start if isinstance(start, int) else pad_of(model)


def use_layout(model: Model, layout: LayoutName) -> None:
    """Set the attention that a layout needs: forest attention, or the model's own for padded sequences."""
    # Families without SDPA (Gemma 2 caps its scores) say so by this flag of transformers; eager serves every family.
    own = "sdpa" if model.network._supports_sdpa else "eager"
    wanted = FOREST if layout == "forest" else own
    if model.network.config._attn_implementation != wanted:
        model.network.set_attn_implementation(wanted)


def hold_in_bfloat16(model: Model) -> None:
    """Keep the frozen linear weights in bfloat16, so that autocast need not convert them at every product.

    Embeddings, norms and the head tied to them stay float32: the residual stream is summed in float32.
    """
    tied = {
        id(parameter) for module in model.network.modules() if isinstance(module, nn.Embedding) for parameter in module.parameters()
    }
    for module in model.network.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters(recurse=False))  # a trained bias stays a master
        if isinstance(module, nn.Linear) and frozen and id(module.weight) not in tied:
            module.to(torch.bfloat16)
