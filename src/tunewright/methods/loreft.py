"""LoReFT: interventions on hidden states within a subspace with an orthonormal basis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.methods._changes import HiddenTuning
from tunewright.methods._reft import ReFT

if TYPE_CHECKING:
    from tunewright.engine.changes import Intervention


class LoReFT(ReFT):
    """Sets what a few directions of a hidden state say, at the first and last tokens of a prompt.

    h + R^T (W h + b - R h) behind a block, with R and W [rank, D] and the rows of R orthonormal. Training does not start at the
    base: R and W are drawn at random, as in the authors' library. Dropout is of the changed states, as there.

    Source: Wu et al., "ReFT: Representation Finetuning for Language Models", arXiv 2404.03592; github.com/stanfordnlp/pyreft.
    Cost: rank * (2 * D + 1) parameters a block, up to twice that without `share`; almost nothing at inference, since it runs at
    a few tokens of the prompt only. What lies below the lowest block is kept and not computed again.
    Use when: tunings must be tiny, or instructions are short and answers long. Avoid when: what is to be learned stands in the
    middle of long prompts, or the tuning must become a part of the weights: it cannot be merged.
    Raises: `ConfigurationError` for a block that the base does not have, or a rank above its width.
    """

    def kind(self) -> type[Intervention]:
        """See the class."""
        from tunewright.engine.changes import LoReFTChange

        return LoReFTChange

    def _tuning(self, tuning: HiddenTuning) -> HiddenTuning:
        return LoReFTTuning(tuning.model, self, tuning.slot, tuning.spots, tuning.stays)


class LoReFTTuning(HiddenTuning):
    """Interventions whose rotations are kept orthonormal."""

    def after_update(self) -> None:
        """What is trained becomes the rotation that it stands for; nothing that is computed changes."""
        from tunewright.engine.changes import LoReFTChange, retract

        retract([change for change in self.changes if isinstance(change, LoReFTChange)])
