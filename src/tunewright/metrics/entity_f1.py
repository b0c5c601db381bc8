"""Entity F1: named entities found whole, as CoNLL counts them."""

from __future__ import annotations

from tunewright.metrics._entities import EntityMetric


class EntityF1(EntityMetric):
    """`2 hit / (answered + wanted)` over all entities of all rows; hits have the same first word, last word and type.

    How tags are read, B and I and what breaks their rules, stands in `metrics/_entities.py`.

    Source: Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050 (micro average, as conlleval and seqeval compute it).
    Use when both missed and invented entities count; avoid for tags without `B-` and `I-` (parts of speech): take `token_accuracy`.
    """

    title = "Entity F1"
    part = "f1"
