"""Entities in tags: which spans of words a sequence of tags marks, and how many of them two sequences share.

Tags are read as conlleval and seqeval's default read them. `B-X` begins an entity of type X, `I-X` continues one; an `I-X` that
follows no word of an X begins one as well (so IOB1, in which B stands between neighbours only, is read rightly). `E-X` and `S-X`
(BIOES; L and U in BILOU) end an entity and are one. Everything else (`O`, tags without a prefix) is outside.

Strict matching: an entity is found if and only if first word, last word and type are those of the reference; there is no partial
credit. Source: Tjong Kim Sang and De Meulder 2003, "CoNLL-2003 shared task", arXiv cs/0306050.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from tunewright.metrics import Metric, check_rows

if TYPE_CHECKING:
    import numpy as np

_BEGINS, _ENDS, _INSIDE = frozenset("BSU"), frozenset("ELSU"), frozenset("BIELSU")


class Entity(NamedTuple):
    """Words `first` to `last`, both included, and the type that they name."""

    first: int
    last: int
    kind: str


def has_entities(labels: Iterable[str]) -> bool:
    """Whether tags mark entities: one of them begins or continues one."""
    return any(_parts(label)[0] in _INSIDE for label in labels)


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities that a sequence of tags marks."""
    found: set[Entity] = set()
    first, open_kind = 0, None
    for place, tag in enumerate(tags):
        prefix, kind = _parts(tag)
        if open_kind is not None and (prefix not in _INSIDE or prefix in _BEGINS or kind != open_kind):
            found.add(Entity(first, place - 1, open_kind))
            open_kind = None
        if prefix in _INSIDE and open_kind is None:
            first, open_kind = place, kind
        if prefix in _ENDS and open_kind is not None:
            found.add(Entity(first, place, open_kind))
            open_kind = None
    if open_kind is not None:
        found.add(Entity(first, len(tags) - 1, open_kind))
    return found


def _parts(tag: str) -> tuple[str, str]:
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and prefix in _INSIDE else ("O", "")


class EntityMetric(Metric):
    """The abstract micro average over entities: `part` says of what, from the sums [hit, answered, wanted]."""

    task = "tags"
    part: ClassVar[Literal["precision", "recall", "f1"]]

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        import numpy as np

        check_rows(answers, references)
        pairs = [(entities(one.split()), entities(other.split())) for one, other in zip(answers, references, strict=True)]
        return np.array([(len(own & right), len(own), len(right)) for own, right in pairs], dtype=float)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        import numpy as np

        hit_R, answered_R, wanted_R = sums_RK.T
        upper_R, lower_R = {
            "precision": (hit_R, answered_R),
            "recall": (hit_R, wanted_R),
            "f1": (2 * hit_R, answered_R + wanted_R),
        }[self.part]
        nothing_R = (answered_R + wanted_R == 0).astype(float)  # no entity wanted and none answered is right
        return np.divide(upper_R, lower_R, out=nothing_R, where=lower_R > 0)
