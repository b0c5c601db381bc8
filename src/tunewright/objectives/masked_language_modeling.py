"""Masked language modelling: learn to fill in words that were hidden."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.forest import Segment
from tunewright.data.rows import Row
from tunewright.objectives._corruption import ROWS, Corruption, Window, planted
from tunewright.objectives._texts import Found, TextObjective

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.data.rendering.encoding import Encoding
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head


class MaskedLanguageModeling(TextObjective):
    """Minimises the cross-entropy of hidden tokens, given the rest of the text on both sides.

    Of a window of n tokens, max(1, round(share * n)) are to be found; of these 80 % are replaced by the mask token, 10 % by any
    other token, and 10 % stay. total = - sum over them of w log p(token | corrupted text), count = sum of w. Every epoch hides
    others (drawn from seed, epoch and row); measured is always on the same ones. Long texts become windows, uncut. Probabilities
    come from the head that the base was pre-trained with, which runs at hidden tokens only.

    Source: Devlin et al., "BERT", arXiv 1810.04805, section 3.1 and appendix A.1 (whole words: the authors' release of May 2019);
    drawn anew each epoch: Liu et al., "RoBERTa", arXiv 1907.11692, section 4.1. Parity with transformers' models is tested.
    Cost: no parameters of its own; one forward and backward pass a text, of which the head sees the hidden tokens.
    Use when: an encoder is to learn the language of a domain before (or without) labels. Avoid when: the base has no such head
    (sentence encoders), or a handful of texts is all there is.
    Raises: `BaseModelError` for a base that is no encoder, has no head for hidden words, or no mask token; `ConfigurationError` for
    shares that do not add up.
    """

    rows: ClassVar[tuple[type[Row], ...]] = ROWS
    kind: ClassVar[str] = "encoder"
    writes: ClassVar[bool] = False
    own_head: ClassVar[bool] = True
    learns: ClassVar[str] = "hidden words, others in each epoch"

    share: float = Field(default=0.15, gt=0, lt=1, description="of the tokens, how many are to be found")
    masked: float = Field(default=0.8, ge=0, le=1, description="of those, how many the mask token replaces")
    replaced: float = Field(default=0.1, ge=0, le=1, description="of those, how many any other token replaces; the rest stays")
    whole_words: bool = Field(default=False, description="hide all tokens of a word or none")

    @model_validator(mode="after")
    def _shares_add_up(self) -> MaskedLanguageModeling:
        if self.masked + self.replaced > 1:
            problem = f"masked ({self.masked:g}) and replaced ({self.replaced:g}) are more than all tokens that are to be found"
            raise ConfigurationError(problem, where="masked", hint="Their sum is at most 1.")
        return self

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head | None:
        """No new head: that the base has one of its own is made sure of here."""
        from tunewright.engine.masked import MaskedHead

        MaskedHead(model)
        return None

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        encoding = renderer.encoding
        around = len(encoding.prefix) + len(encoding.suffix)
        masking = Masking.of(encoding, (self.share, self.masked, self.replaced), self.whole_words)
        return planted(rows, renderer, masking, None if renderer.limit is None else max(1, renderer.limit - around))

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.masked import MaskedHead, hidden_words

        hidden = hidden_words(batch)
        with engine.autocast():
            states_ND = engine.hidden_at(batch, hidden.rows_N)
            return MaskedHead(engine.model).cross_entropy(states_ND, hidden.targets_N, hidden.weights_N)

    def found(self, engine: Engine, batch: Batch) -> Found:
        from tunewright.engine.masked import MaskedHead, hidden_words

        hidden = hidden_words(batch)
        with engine.autocast():
            states_ND = engine.hidden_at(batch, hidden.rows_N)
            scores = MaskedHead(engine.model).token_scores(states_ND, hidden.targets_N, top1=True)
        return Found(scores.log_probability_N, batch.row_S[hidden.owners_N], scores.top1_N)


@dataclass(frozen=True)
class Masking(Corruption):
    """Hides tokens of a window.

    Args:
        shares: how many are to be found; of those, how many the mask token and how many any other token replaces.
        mask: the id of the mask token; vocabulary: how many ids there are.
        special: ids that are never hidden, and never stand in for others.
        around: the ids in front of a window and behind it.
    """

    shares: tuple[float, float, float]
    whole_words: bool
    mask: int
    vocabulary: int
    special: frozenset[int]
    around: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, encoding: Encoding, shares: tuple[float, float, float], whole_words: bool) -> Masking:
        """For one tokenizer. Raises `BaseModelError` where it has no mask token."""
        tokenizer = encoding.tokenizer
        if tokenizer.mask_token_id is None:
            hint = "Take the base's own tokenizer, or another base."
            raise BaseModelError("the tokenizer has no mask token, so nothing can be hidden", where="base", hint=hint)
        special = frozenset(tokenizer.all_special_ids)
        return cls(shares, whole_words, tokenizer.mask_token_id, len(tokenizer), special, (encoding.prefix, encoding.suffix))

    def problem(self, window: Window) -> str:
        return "" if set(window.tokens) - self.special else "the text has no token that could be hidden"

    def segments(self, window: Window, seed: int) -> tuple[Segment, ...]:
        draw = random.Random(seed)
        tokens, tags = list(window.tokens), [-1] * len(window.tokens)
        _, masked, replaced = self.shares
        for place in sorted(self._chosen(window, draw)):
            tags[place] = tokens[place]
            luck = draw.random()
            if luck < masked:
                tokens[place] = self.mask
            elif luck < masked + replaced:
                tokens[place] = self._other(draw)
        before, behind = self.around
        nothing = tuple((-1,) * len(part) for part in self.around)
        whole = (*before, *tokens, *behind)
        return (Segment(whole, tags=(*nothing[0], *tags, *nothing[1]), values=(window.weight,), row=window.row),)

    def _chosen(self, window: Window, draw: random.Random) -> list[int]:
        """The places that are to be found."""
        usable = [place for place, token in enumerate(window.tokens) if token not in self.special]
        count = min(len(usable), max(1, round(self.shares[0] * len(window.tokens))))
        if not self.whole_words:
            return draw.sample(usable, count)
        words: dict[int, list[int]] = {}
        for place in usable:
            words.setdefault(window.words[place], []).append(place)
        order = list(words.values())
        draw.shuffle(order)
        chosen: list[int] = []
        for word in order:
            if len(chosen) + len(word) <= count:  # a word that is too long for what is left is passed over, as in BERT's own code
                chosen += word
        return chosen or order[0]

    def _other(self, draw: random.Random) -> int:
        token = draw.randrange(self.vocabulary)
        while token in self.special:
            token = draw.randrange(self.vocabulary)
        return token
