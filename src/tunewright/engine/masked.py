"""The head with which an encoder fills in hidden words, applied where words are hidden and nowhere else.

What a family puts between its body and its logits (a layer, a norm, a bias) is its own affair: its own forward pass runs, with the
body standing aside for hidden states that are there already, and with the last product left to `LanguageHead`, which makes it in
chunks. Families whose output embedding is not that last product (DeBERTa) give their logits themselves; that is found by comparing.

Shape suffixes: N hidden words, D width, V vocabulary, S segments, U own tokens of all segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from tunewright.core.errors import BaseModelError
from tunewright.engine.around import Around, Forward
from tunewright.engine.batch import Batch
from tunewright.engine.head import LanguageHead
from tunewright.engine.loss import Loss, weighted_cross_entropy
from tunewright.engine.scores import TokenScores, token_scores_of_logits
from tunewright.models import Model

TOLERANCE = 2e-4  # of the largest value, as in the probe
_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether the output embedding of a network is the last product before its logits, found once a network."""


class Hidden(NamedTuple):
    """The hidden words of a batch.

    Args:
        rows_N: their flat positions, rising; targets_N: the tokens that stood there.
        weights_N: how much each counts, float32; owners_N: the segment that it belongs to.
    """

    rows_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    owners_N: Tensor


def hidden_words(batch: Batch) -> Hidden:
    """The places of a batch whose `tags` say which token stood there; a segment's one value is the weight of its words."""
    lengths_S = batch.spans_S2[:, 1] - batch.spans_S2[:, 0]
    numbers_S = torch.arange(len(lengths_S), device=lengths_S.device)
    owners_U = numbers_S.repeat_interleave(lengths_S)
    inside_U = torch.arange(len(owners_U), device=lengths_S.device) - (lengths_S.cumsum(0) - lengths_S)[owners_U]
    chosen_U = batch.tags_U >= 0
    owners_N = owners_U[chosen_U]
    rows_N = batch.spans_S2[owners_N, 0] + inside_U[chosen_U]
    return Hidden(rows_N, batch.tags_U[chosen_U], batch.values_SK[owners_N, 0], owners_N)


class MaskedHead:
    """A network's own head for hidden words.

    Args:
        model: an encoder that was loaded with its head.

    Raises:
        BaseModelError: the network has none, or one that wants more than the last hidden states.
    """

    def __init__(self, model: Model) -> None:
        self.network, self.body, self.width = model.network, model.body, model.width
        linear = self.network.get_output_embeddings()
        if linear is None or self.network is self.body:
            raise BaseModelError(
                "was loaded without a head for hidden words",
                where=model.base,
                hint="Take a base that was pre-trained on hidden words and kept its head (BERT, RoBERTa, ModernBERT).",
            )
        self.last = LanguageHead(linear)
        if self.network not in _KNOWN:
            _KNOWN[self.network] = self._ends_in_it()

    def states(self, hidden_ND: Tensor) -> Tensor:
        """What the output embedding is multiplied with, [N, D]."""
        with self._standing_aside(hidden_ND), _in_place_of(self.last.linear, lambda given: given):
            return self._output(len(hidden_ND))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] logits as the network's own forward pass makes them; the caller keeps N small."""
        with self._standing_aside(hidden_ND):
            return self._output(len(hidden_ND))

    def cross_entropy(self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Loss:
        """The weighted cross-entropy at N last hidden states of the body."""
        if _KNOWN[self.network]:
            return self.last.cross_entropy(self.states(hidden_ND), targets_N, weights_N)
        return weighted_cross_entropy(self.logits(hidden_ND), targets_N, weights_N)

    def token_scores(self, hidden_ND: Tensor, targets_N: Tensor, *, top1: bool = False) -> TokenScores:
        """Log p(target) at N last hidden states of the body, and on demand whether no token is more probable."""
        if _KNOWN[self.network]:
            return self.last.token_scores(self.states(hidden_ND), targets_N, top1=top1)
        return token_scores_of_logits(self.logits(hidden_ND), targets_N, top1=top1)

    def _standing_aside(self, hidden_ND: Tensor) -> AbstractContextManager[None]:
        given = BaseModelOutput(last_hidden_state=hidden_ND[None])  # pyright: ignore[reportArgumentType]
        return _in_place_of(self.body, lambda *_asked, **_named: given)

    def _output(self, count: int) -> Tensor:
        tokens_1N = torch.zeros((1, count), dtype=torch.long, device=next(self.network.parameters()).device)
        return self.network(input_ids=tokens_1N).logits[0]

    @torch.no_grad()
    def _ends_in_it(self) -> bool:
        weight: Tensor = next(self.body.parameters())
        drawn = torch.Generator().manual_seed(0)
        hidden_ND = torch.randn((3, self.width), generator=drawn).to(weight)
        try:
            whole_NV = self.logits(hidden_ND)
        except (TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise BaseModelError(
                f"its head for hidden words wants more than the last hidden states ({type(error).__name__})",
                where=self.network.config.model_type,
                hint="Take another family (BERT, RoBERTa, ModernBERT).",
            ) from error
        try:
            ours_NV = self.last.logits(self.states(hidden_ND))
        except (TypeError, RuntimeError):  # what is not the last product may have any width
            return False
        same = ours_NV.shape == whole_NV.shape
        return same and float((ours_NV - whole_NV).abs().max()) <= TOLERANCE * float(whole_NV.abs().max())


@contextmanager
def _in_place_of(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Inside, a module gives what `forward` gives."""
    standing = Around(module, lambda _plain: forward)
    try:
        yield
    finally:
        standing.remove()
