"""DiReFT: a low-rank change of hidden states at a few tokens of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.methods._reft import ReFT

if TYPE_CHECKING:
    from tunewright.engine.changes import Intervention


class DiReFT(ReFT):
    """Adds a low-rank product to hidden states at the first and last tokens of a prompt: a LoRA on states in place of weights.

    h + W2^T (W1 h + b) behind a block, with W1 and W2 [rank, D]. Training does not start at the base: both are drawn at random, as
    in the authors' library. Dropout is of the changed states, as there.

    Source: Wu et al., "ReFT: Representation Finetuning for Language Models", arXiv 2404.03592; github.com/stanfordnlp/pyreft.
    Cost: rank * (2 * D + 1) parameters a block, up to twice that without `share`; the quickest of the three.
    Use when: LoReFT would serve and steps must be as quick as they can be. Avoid when: quality counts first; LoReFT is the better
    one in the paper.
    Raises: `ConfigurationError` for a block that the base does not have, or a rank above its width.
    """

    def kind(self) -> type[Intervention]:
        """See the class."""
        from tunewright.engine.changes import DiReFTChange

        return DiReFTChange
