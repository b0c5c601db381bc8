"""Floor 1: the base: loading it, checking it, its facts, its places, its head, its cost, its identity.

`Model` is what every room above holds. Importing this package loads neither torch nor transformers, so that `facts` (what a
folder's headers say) answers before anything heavy does; networks are read by `tunewright.models.loading.load`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.models.facts import Kind, context_of, width_of
from tunewright.models.lanes import Lanes

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Kind", "Model"]


@dataclass
class Model:
    """A base in memory: an unmodified transformers network with its tokenizer, and where both came from.

    Args:
        network: the network, in evaluation mode.
        tokenizer: its tokenizer; it always has a pad token (see `notes` for how one was chosen where the base has none).
        kind: `decoder`, `encoder` or `encoder_decoder`.
        family: the model type of its configuration ("llama").
        base: as the user wrote it.
        folder: where the files lie; None for a network that was made in memory.
        fingerprint: a hash of weights, essential configuration, tokenizer and chat template.
        notes: what a report should say about how it was loaded.
        lanes: which tokens of the batch at hand belong to which of the tunings that stand on it.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    family: str
    base: str
    folder: Path | None
    fingerprint: str
    notes: tuple[str, ...] = ()
    lanes: Lanes = field(default_factory=Lanes)

    @property
    def body(self) -> PreTrainedModel:
        """The network without its language-model head: what turns tokens into hidden states."""
        return self.network.base_model  # type: ignore[return-value]

    @property
    def has_own_head(self) -> bool:
        """Whether the network makes logits: it was loaded with the head that it was pre-trained with."""
        return self.kind != "encoder" or self.network is not self.body

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in the order they run; for an encoder-decoder the encoder's, then the decoder's."""
        from tunewright.models.sites import blocks_of

        return list(blocks_of(self.network).values())

    @property
    def width(self) -> int:
        """D, the size of a hidden state."""
        return width_of(self.network.config.to_dict())

    @property
    def vocabulary(self) -> int:
        """V, the rows of the input embedding; the tokenizer may use fewer."""
        return self.network.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, return-value]

    @property
    def context(self) -> int | None:
        """The most tokens the network has positions for; None when it knows no such limit (T5)."""
        return context_of(self.network.config.to_dict())

    def sites(self, *names: str) -> dict[str, nn.Module]:
        """Path and module of every place that `names` mean; see `tunewright.models.sites.find`."""
        from tunewright.models.sites import find

        return find(self.network, names)
