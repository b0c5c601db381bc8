"""What is put on a body to answer: one task head a file.

An entry is a `Head`. Heads that answer for a whole segment pool its hidden states (`PooledHead`), heads that answer for single
tokens read each one (`TokenHead`). A head is kept in two files beside the tuning: `head.safetensors` and `head.json`, whose `kind`
is the name of the head's file here.
"""

from __future__ import annotations

from tunewright.core.registry import Room
from tunewright.models.heads._head import SHAPE, WEIGHTS, Head, check_labels
from tunewright.models.heads._pooled import PooledHead, Pooling
from tunewright.models.heads._token import TokenHead
from tunewright.models.heads.classification import ClassificationHead

__all__ = ["SHAPE", "WEIGHTS", "ClassificationHead", "Head", "PooledHead", "Pooling", "TokenHead", "check_labels", "room"]

room: Room[Head] = Room("tunewright.models.heads", Head, "head")  # type: ignore[type-abstract]
