"""Frozen layers that carry low-rank changes of one or more tunings, y = W x + b + scale * B A x, in few products.

`adapter` is one change, `starts` how its matrices begin, `product` the arithmetic, `carrying` how a layer of an unmodified network
comes to carry changes and is plain again afterwards, `siblings` the layers of a block that read the same input and are computed
together, `hosts` the embeddings and convolutions that carry changes too.

Tensor suffixes: T flat tokens, I inputs, O outputs, R rank (of all adapters of a product together), N lanes.
"""

from tunewright.engine.linear.adapter import Adapter, Change, LoRAAdapter, holds_numbers
from tunewright.engine.linear.carrying import hand_over, load_on, take_off
from tunewright.engine.linear.hosts import ConvolutionAdapter, EmbeddingAdapter
from tunewright.engine.linear.product import OwnProduct
from tunewright.engine.linear.starts import begin

__all__ = [
    "Adapter",
    "Change",
    "ConvolutionAdapter",
    "EmbeddingAdapter",
    "LoRAAdapter",
    "OwnProduct",
    "begin",
    "hand_over",
    "holds_numbers",
    "load_on",
    "take_off",
]
