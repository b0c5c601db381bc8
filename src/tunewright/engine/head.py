"""The language head, applied at the hidden states that are asked for and nowhere else.

Some families change the logits after the linear layer (a soft cap, a scale). Those are read from the configuration here, and
the probe at load compares the result with the model's own logits, so a family that does something else is found, not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from tunewright.engine.loss import Learned, Loss, Shape, chunk_rows, chunks, smoothed_cross_entropy, weighted_cross_entropy
from tunewright.engine.scores import TokenScores, joined, linear_token_scores, token_scores_of_logits


@dataclass(frozen=True)
class LanguageHead:
    """Logits = cap(scale * linear(hidden)).

    Args:
        linear: the output embedding, whatever module now stands there (a LoRA on the head included).
        scale: Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`.
        cap: Gemma 2's `final_logit_softcapping`, or None.
    """

    linear: nn.Module
    scale: float = 1.0
    cap: float | None = None

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] logits; the caller keeps N small."""
        return Shape(self.scale, self.cap).apply(self.linear(hidden_ND))

    def cross_entropy(self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float = 0.0) -> Loss:
        """The weighted cross-entropy at N hidden states, in chunks, with the share `smoothing` of every target spread over all."""
        plain = self.plain()
        if plain is not None:
            learned = Learned(targets_N, weights_N, smoothing)
            return smoothed_cross_entropy(hidden_ND, plain.weight, plain.bias, learned, Shape(self.scale, self.cap))
        if smoothing:
            return self._smoothed(hidden_ND, Learned(targets_N, weights_N, smoothing))
        scores = self.token_scores(hidden_ND, targets_N)
        return Loss(-(scores.log_probability_N * weights_N).sum(), weights_N.sum())

    def _smoothed(self, hidden_ND: Tensor, learned: Learned) -> Loss:
        """The same where the head is not one plain product: its logits are made again chunk by chunk in the backward pass."""

        def total(part_ND: Tensor, part: slice) -> Tensor:
            logits_NV = self.logits(part_ND)
            return weighted_cross_entropy(logits_NV, learned.targets_N[part], learned.weights_N[part], learned.smoothing).total

        step = chunk_rows(self.linear(hidden_ND[:1]).shape[-1])
        sums = [checkpoint(total, hidden_ND[part], part, use_reentrant=False) for part in chunks(len(hidden_ND), step)]
        return Loss(torch.stack(sums).sum(), learned.weights_N.sum())

    def token_scores(
        self, hidden_ND: Tensor, targets_N: Tensor, *, entropy: bool = False, top1: bool = False, temperature: float = 1.0
    ) -> TokenScores:
        """Log p(target) at N hidden states, in chunks; differentiable once.

        Args:
            hidden_ND: hidden states that predict the targets.
            targets_N: token ids.
            entropy, top1: whether to find them too; an entropy costs two more passes over the logits.
            temperature: what the logits are divided by.
        """
        plain = self.plain()
        if plain is not None:
            shape = Shape(self.scale, self.cap, temperature)
            return linear_token_scores(hidden_ND, plain.weight, plain.bias, targets_N, shape, (entropy, top1))

        def scored(part_ND: Tensor, part_N: Tensor) -> TokenScores:
            return token_scores_of_logits(self.logits(part_ND), part_N, entropy=entropy, top1=top1, temperature=temperature)

        step = chunk_rows(self.linear(hidden_ND[:1]).shape[-1])
        if len(hidden_ND) <= step:
            return scored(hidden_ND, targets_N)
        # A head that is not one plain product: whatever it is, autograd makes it again chunk by chunk in the backward pass.
        parts = [checkpoint(scored, hidden_ND[part], targets_N[part], use_reentrant=False) for part in chunks(len(hidden_ND), step)]
        return joined(parts)

    @torch.no_grad()
    def log_probabilities(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Log p(target) in float32, one for each of N, in chunks; no gradients."""
        return self.token_scores(hidden_ND, targets_N).log_probability_N

    def plain(self) -> nn.Linear | None:
        """The linear layer, where calling it would be one product with its weight and nothing else."""
        changed = "forward" in vars(self.linear) or self.linear._forward_hooks or self.linear._forward_pre_hooks
        return self.linear if type(self.linear) is nn.Linear and not changed else None


def language_head(network: PreTrainedModel) -> LanguageHead | None:
    """The head of a language model, or None where the network has none."""
    linear = network.get_output_embeddings()
    if linear is None:
        return None
    facts: PretrainedConfig = network.config.get_text_config()
    known = facts.to_dict()
    scale = float(known.get("logit_scale") or 1.0) / float(known.get("logits_scaling") or 1.0)
    return LanguageHead(linear, scale, known.get("final_logit_softcapping"))
