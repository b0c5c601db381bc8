"""Token classification: a tag for every word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Segment, Tree
from tunewright.data.rows import Row, TagsRow
from tunewright.objectives import Guess, Reading, Task
from tunewright.objectives._heads import HeadObjective, drawn_by, known_labels, refuse_encoder_decoder

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.data.rendering.places import Words
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

OUTSIDE = "O"


class TokenClassification(HeadObjective):
    """Minimises the cross-entropy of the right tag of every word.

    A linear layer on one hidden state of each word gives p(tag | word, sentence); a word that the tokenizer cuts has its tag on
    one piece only. total = - sum over words of log p(tag), count = words.

    Source: Devlin et al., "BERT", arXiv 1810.04805, section 5.3 (first piece); transformers' token classification (parity tested).
    Cost: width * tags + tags parameters.
    Use when: every word has a label: named entities, parts of speech. Avoid when: one label is for the whole text.
    Raises: `ConfigurationError` on an encoder-decoder, and when tags are given that do not cover the rows.
    """

    rows: ClassVar[tuple[type[Row], ...]] = (TagsRow,)
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
    task: ClassVar[Task] = "token_classification"
    learns: ClassVar[str] = "one tag a word"

    piece: Literal["auto", "first", "last"] = Field(
        default="auto", description="which piece of a cut word has its tag; a decoder's first one has not seen the word"
    )
    head_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head's last layer")
    labels: tuple[str, ...] = Field(default=(), description="the tags in order; found in the training rows when empty")

    def decided(self, kind: str, rows: Sequence[Row]) -> TokenClassification:
        refuse_encoder_decoder(kind)
        piece = self.piece if self.piece != "auto" else "first" if kind == "encoder" else "last"
        return self.model_copy(update={"piece": piece, "labels": known_labels(self.labels, rows)})

    def label_names(self) -> tuple[str, ...]:
        return self.labels

    def measured(self) -> tuple[str, ...]:
        from tunewright.metrics._entities import has_entities

        # Tags without `B-` and `I-` (parts of speech) mark no entities that could be found.
        return self.metrics if not self.labels or has_entities(self.labels) else ("token_accuracy", "token_macro_f1")

    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        index = {label: number for number, label in enumerate(self.labels)}
        return [self._planted(row, number, renderer, index) for number, row in enumerate(rows)]

    def _planted(self, row: Row, number: int, renderer: Renderer, index: dict[str, int]) -> Rendered | Refusal:
        from tunewright.data.rendering import Refusal, Rendered
        from tunewright.data.rendering.places import words

        if not isinstance(row, TagsRow):
            return Refusal("shape", f"a row of shape '{row.shape}' has no tags", row.where, number)
        found = words(row.tokens, renderer)
        tags = [-1] * len(found.tokens)
        for place, tag in zip(self._places(found), row.tags, strict=False):
            if place is not None and tags[place] < 0:
                tags[place] = index.get(tag, -1)
        if row.tags and max(tags, default=-1) < 0:
            return Refusal("nothing_trained", "none of its words has a token of its own with a tag", row.where, number)
        return Rendered(Tree((Segment(found.tokens, tags=tuple(tags), row=number),)), found.cut, row.where, ended=False, row=number)

    def _places(self, found: Words) -> tuple[int | None, ...]:
        if self.piece == "auto":
            raise ConfigurationError("the piece is not decided yet", where="objective.piece", hint="Call `decided` first.")
        return found.first if self.piece == "first" else found.last

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from torch.nn.functional import cross_entropy

        from tunewright.engine.loss import Loss

        total = cross_entropy(engine.label_logits(batch), batch.tags_U, reduction="sum", ignore_index=-1)
        return Loss(total, (batch.tags_U >= 0).sum().to(total.dtype))

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head:
        from tunewright.models.heads.token_classification import TokenClassificationHead

        return TokenClassificationHead(model.width, labels, drawn_by(seed), dropout=self.head_dropout)

    def read(self, engine: Engine, renderer: Renderer, row: Row, outputs: Sequence[Tensor]) -> Reading:
        from tunewright.data.rendering.places import words

        assert isinstance(row, TagsRow)
        (logits_LC,) = outputs
        places = self._places(words(row.tokens, renderer))
        # A word that was cut off, or has no token of its own, is no entity; where tags are no entities, any guess is as good.
        fallback = OUTSIDE if OUTSIDE in self.labels else self.labels[0]
        best = logits_LC.argmax(dim=1).tolist()
        tags = [fallback if place is None else self.labels[best[place]] for place in places]
        log_probability_LC = logits_LC.log_softmax(dim=1)
        index = {label: number for number, label in enumerate(self.labels)}
        known = [(place, index[tag]) for place, tag in zip(places, row.tags, strict=False) if place is not None and tag in index]
        loss = -sum(float(log_probability_LC[place, tag]) for place, tag in known) / len(known) if known else None
        return Reading(" ".join(tags), loss, len(known), details={"tokens": list(row.tokens), "tags": tags})

    def guess(self, rows: Sequence[Row]) -> Guess:
        counts = Counter(tag for row in rows for tag in row.classes())
        most = min(counts, key=lambda tag: (-counts[tag], tag))
        note = "answering the most frequent tag for every word: the base has no head for these tags"
        return Guess("majority tag", note, lambda row: " ".join(most for _ in row.classes()))

    def asked(self, prompt: str) -> Row:
        if not prompt.split():
            raise ConfigurationError("there is no word to tag", where="prompt")
        return TagsRow(tokens=tuple(prompt.split()), tags=())
