"""Frozen linear layers that carry low-rank changes of one or more tunings, y = W x + b + scale * B A x, in few products.

`adapter` is one change, `product` the arithmetic, `carrying` how a layer of an unmodified network comes to carry changes and is
plain again afterwards, `siblings` the layers of a block that read the same input and are computed together.

Tensor suffixes: T flat tokens, I inputs, O outputs, R rank (of all adapters of a product together), N lanes.
"""

from tunewright.engine.linear.adapter import LoRAAdapter
from tunewright.engine.linear.carrying import hand_over, load_on, take_off

__all__ = ["LoRAAdapter", "hand_over", "load_on", "take_off"]
