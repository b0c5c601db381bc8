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

from tunewright.engine.loss import Loss, chunk_rows, linear_cross_entropy, weighted_cross_entropy


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
        logits_NV = self.linear(hidden_ND)
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        return logits_NV if self.cap is None else self.cap * torch.tanh(logits_NV / self.cap)

    def cross_entropy(self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Loss:
        """The weighted cross-entropy at N hidden states, in chunks."""
        if type(self.linear) is nn.Linear and self.scale == 1.0 and self.cap is None:
            return linear_cross_entropy(hidden_ND, self.linear.weight, self.linear.bias, targets_N, weights_N)
        # A head that is not one plain product is recomputed chunk by chunk in the backward pass.
        step = chunk_rows(self.linear(hidden_ND[:1]).shape[-1]) if len(hidden_ND) else 1
        totals = [hidden_ND.sum() * 0.0]
        for start in range(0, len(hidden_ND), step):
            part = slice(start, start + step)
            totals.append(checkpoint(self._chunk, hidden_ND[part], targets_N[part], weights_N[part], use_reentrant=False))
        return Loss(torch.stack([total.float() for total in totals]).sum(), weights_N.sum())

    def _chunk(self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        return weighted_cross_entropy(self.logits(hidden_ND), targets_N, weights_N).total

    @torch.no_grad()
    def log_probabilities(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """log p(target) in float32, one for each of N, in chunks."""
        if not len(hidden_ND):
            return hidden_ND.new_zeros(0, dtype=torch.float32)
        step = chunk_rows(self.logits(hidden_ND[:1]).shape[-1])
        parts = []
        for start in range(0, len(hidden_ND), step):
            logits_NV = self.logits(hidden_ND[start : start + step]).float()
            picked = logits_NV.gather(1, targets_N[start : start + step, None])[:, 0]
            parts.append(picked - logits_NV.logsumexp(dim=1))
        return torch.cat(parts)


def language_head(network: PreTrainedModel) -> LanguageHead | None:
    """The head of a language model, or None where the network has none."""
    linear = network.get_output_embeddings()
    if linear is None:
        return None
    facts: PretrainedConfig = network.config.get_text_config()
    known = facts.to_dict()
    scale = float(known.get("logit_scale") or 1.0) / float(known.get("logits_scaling") or 1.0)
    return LanguageHead(linear, scale, known.get("final_logit_softcapping"))
