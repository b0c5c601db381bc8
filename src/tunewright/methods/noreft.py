"""NoReFT: LoReFT without the constraint that makes its basis orthonormal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.methods._reft import ReFT

if TYPE_CHECKING:
    from tunewright.engine.changes import Intervention


class NoReFT(ReFT):
    """Changes hidden states within a subspace at the first and last tokens of a prompt; its basis is free.

    h + W2^T (W1 h + b - W2 h) behind a block, with W1 and W2 [rank, D]. Training does not start at the base: both are drawn at
    random, as in the authors' library. Dropout is of the changed states, as there.

    Source: Wu et al., "ReFT: Representation Finetuning for Language Models", arXiv 2404.03592; github.com/stanfordnlp/pyreft.
    Cost: rank * (2 * D + 1) parameters a block, up to twice that without `share`; a step is a little quicker than LoReFT's.
    Use when: LoReFT would serve and its constraint costs too much. Avoid when: in doubt; LoReFT is the better one in the paper.
    Raises: `ConfigurationError` for a block that the base does not have, or a rank above its width.
    """

    def kind(self) -> type[Intervention]:
        """See the class."""
        from tunewright.engine.changes import NoReFTChange

        return NoReFTChange
