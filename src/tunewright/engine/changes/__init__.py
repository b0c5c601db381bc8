"""Changes of hidden states by tunings: bottlenecks, interventions, scales, and where they stand on a network."""

from __future__ import annotations

from tunewright.engine.changes.bottleneck import ACTIVATIONS, Bottleneck
from tunewright.engine.changes.change import HiddenChange, Tokens
from tunewright.engine.changes.host import Spot, put_on, take_off
from tunewright.engine.changes.intervention import DiReFTChange, Ends, Intervention, LoReFTChange, NoReFTChange, Selection, retract
from tunewright.engine.changes.scale import Scale

__all__ = [
    "ACTIVATIONS",
    "Bottleneck",
    "DiReFTChange",
    "Ends",
    "HiddenChange",
    "Intervention",
    "LoReFTChange",
    "NoReFTChange",
    "Scale",
    "Selection",
    "Spot",
    "Tokens",
    "put_on",
    "retract",
    "take_off",
]
