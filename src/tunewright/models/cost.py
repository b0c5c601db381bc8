"""What a base costs: parameters and arithmetic, from its facts; no torch at import.

Counts are of multiply-adds as two operations, the convention of the scaling-law papers. Norms, activations, softmax and rotations
are left out (below 2 % at any width that matters).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.models.facts import BaseFacts

if TYPE_CHECKING:
    from torch import nn


def parameters(network: nn.Module) -> tuple[int, int]:
    """How many numbers a network has, and how many of them are trainable; a shared one counts once."""
    own = list(network.parameters())
    return sum(item.numel() for item in own), sum(item.numel() for item in own if item.requires_grad)


def head_parameters(facts: BaseFacts) -> int:
    """The numbers of the language-model head, tied or not; an encoder is loaded without one."""
    return 0 if facts.kind == "encoder" else facts.vocabulary * facts.width


def flops_per_token(facts: BaseFacts, *, seen: float = 0.0, target_share: float = 1.0) -> float:
    """Operations of the forward pass for one token: `2 * N_body + 4 * L * H * seen + target_share * 2 * D * V`.

    Args:
        facts: of the base.
        seen: how many tokens one token attends to on average; a causal segment of T tokens has about T / 2, an encoder's T.
        target_share: the share of tokens that the head is computed for; 1 for trainers that compute all logits.

    A backward pass through frozen weights costs about as much again, through trained weights twice as much.
    """
    attention = 4.0 * facts.blocks * facts.heads * facts.head_width * seen
    return 2.0 * facts.body + attention + target_share * 2.0 * head_parameters(facts)
