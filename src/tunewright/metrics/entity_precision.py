"""Entity precision: named entities found whole, as CoNLL counts them."""

from __future__ import annotations

from tunewright.metrics._entities import EntityMetric


class EntityPrecision(EntityMetric):
    """`hit / answered` over all entities of all rows; hits have the same first word, last word and type.

    How tags are read, B and I and what breaks their rules, stands in `metrics/_entities.py`.

    Source: Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050 (micro average, as conlleval and seqeval compute it).
    Use when an invented entity is the costly mistake; avoid alone: answering one sure entity scores 1.
    """

    title = "Entity precision"
    part = "precision"
