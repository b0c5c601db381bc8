"""A frozen base in eight bits, for processors that multiply bytes: dynamically quantised linear layers, forward and backward.

A frozen weight is kept as bytes with one scale an output row, W[o, i] c[i] = q[o, i] s[o]. What meets it is quantised on the way,
one scale a token: forward  y = (q(x / c) q^T) s_x s + b;  backward  dx = (q(dy s) q) s_dy / c, so that one copy of the bytes serves
both ways and the gradient is that of the weight which the forward pass used. Both products add up in 32-bit integers.

The columns' c move what is large from x, where a few columns of trained networks would leave no bytes for the others, to W:
c[i] = sqrt(max |x[:, i]| / max |W[:, i]|), seen on one batch. Approximate all the same: about 1 % of noise a product. Whether a
base bears it is not assumed: the gradients of the trained parameters are compared with those of the base as it was.
Source: dynamic per-token scales as in Dettmers et al., arXiv 2208.07339; c as in Xiao et al., "SmoothQuant", arXiv 2211.10438.
Cost: a quarter of the memory of the layers that are quantised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.core.units import bytes_text
from tunewright.engine.device import has_vnni
from tunewright.engine.linear import OwnProduct, hand_over
from tunewright.engine.loss import Loss
from tunewright.models.sites import linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine

KEY = "training.base_precision"
SMALLEST = 128 * 128  # weights of a layer below which quantising what meets it costs as much as the product saves
AGREEMENT = 0.99  # least cosine between the gradients with and without quantisation


_int_mm = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]


class Int8Linear(nn.Linear, OwnProduct):
    """A frozen linear layer with its weight in bytes, in the place of an `nn.Linear` or of GPT-2's `Conv1D`.

    Args:
        host: the layer that it replaces. Its bias, trained or not, goes on serving; its weight is not kept.
        reach_I: the largest absolute value of each column of what enters it; without, all columns count alike.
    """

    quantised_OI: Tensor
    scale_O: Tensor
    column_I: Tensor

    def __init__(self, host: nn.Linear | Conv1D, reach_I: Tensor | None = None) -> None:
        super(nn.Linear, self).__init__()  # nn.Linear's own would make a weight
        self.transposed = isinstance(host, Conv1D)
        weight_OI = host.weight.detach().T if self.transposed else host.weight.detach()
        self.out_features, self.in_features = weight_OI.shape
        column_I = torch.ones(self.in_features) if reach_I is None else _columns(reach_I, weight_OI.float())
        quantised_OI, scale_O1 = _quantised(weight_OI * column_I)
        held = {"quantised_OI": quantised_OI, "scale_O": scale_O1[:, 0].contiguous(), "column_I": column_I}
        for name, tensor in held.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_parameter("bias", host.bias)
        self.train(host.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        """Follow the network, but not to fewer digits: rounded scales would be an error of their own."""
        before = self.scale_O, self.column_I
        super()._apply(fn, recurse)
        self.scale_O, self.column_I = (held.to(self.quantised_OI.device) for held in before)
        return self

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs], in the dtype of the input or of autocast."""
        return _Int8Product.apply(input, self, self.bias)

    def ahead(self, x: Tensor) -> Tensor:
        """W x + b, without a graph, in the dtype of x."""
        x_TI, scale_T1 = _quantised(x.flatten(0, -2) * (1 / self.column_I))
        y_TO = _int_mm(x_TI, self.quantised_OI.T).float().mul_(scale_T1).mul_(self.scale_O)
        if self.bias is not None:
            y_TO += self.bias
        return y_TO.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def back(self, dy_TO: Tensor) -> Tensor:
        """W^T dy, in the dtype of dy."""
        slope_TO, scale_T1 = _quantised(dy_TO * self.scale_O)
        return _int_mm(slope_TO, self.quantised_OI).float().mul_(scale_T1).mul_(1 / self.column_I).to(dy_TO.dtype)

    @property
    def weight(self) -> nn.Parameter:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The weight that it stands for, as float32 and in its host's orientation; made anew at each call."""
        weight_OI = self.quantised_OI * self.scale_O[:, None] / self.column_I
        return nn.Parameter(weight_OI.T if self.transposed else weight_OI, requires_grad=False)


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, layer: Int8Linear, bias_O: Tensor | None) -> Tensor:
        context.layer, context.shape, context.dtype = layer, x.shape, x.dtype
        return layer.ahead(x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_TO = grad.flatten(0, -2)
        grad_x = grad_bias = None
        if context.needs_input_grad[0]:
            grad_x = context.layer.back(grad_TO).to(context.dtype).view(context.shape)
        if context.needs_input_grad[2]:
            grad_bias = grad_TO.sum(0, dtype=torch.float32)
        return grad_x, None, grad_bias


def _quantised(values_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes [T, D] and their scales [T, 1]: the largest of each row becomes 127. Where a number is not finite, the scale is not."""
    scale_T1 = values_TD.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny * 127).div_(127)
    return (values_TD / scale_T1).round_().to(torch.int8), scale_T1


def _columns(reach_I: Tensor, weight_OI: Tensor) -> Tensor:
    """c of the formula, without zeros: a column that nothing entered, or that weighs nothing, counts as the others do."""
    column_I = (reach_I.float() / weight_OI.abs().amax(0)).sqrt()
    usable_I = column_I.isfinite() & (column_I > 0)
    return torch.where(usable_I, column_I, column_I[usable_I].median() if usable_I.any() else 1.0)


class Watched(nn.Module):
    """A layer as it is, and the largest absolute value of each column of what enters it."""

    def __init__(self, host: nn.Linear | Conv1D) -> None:
        super().__init__()
        self.host = host
        self.reach_I: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        if x.numel():
            reach_I = x.detach().flatten(0, -2).abs().amax(0).float()
            self.reach_I = reach_I if self.reach_I is None else torch.maximum(self.reach_I, reach_I)
        return self.host(x)

    @property
    def weight(self) -> Tensor:
        """The layer's own."""
        return self.host.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return self.host.bias


class Quantised(NamedTuple):
    """What was done to a base.

    Args:
        layers: how many are held as bytes now; considered: linear layers of the blocks.
        freed: bytes of memory that are free now.
        cosine: of the trained parameters' gradients on one batch, before and after.
    """

    layers: int
    considered: int
    freed: int
    cosine: float

    def sentence(self) -> str:
        """What was done, as one line."""
        return (
            f"int8: {self.layers} of {self.considered} linear layers, {bytes_text(self.freed)} less memory, "
            f"gradients agree with those of the exact base (cosine {self.cosine:.4f})"
        )


def refuse_where_slow(device: torch.device) -> None:
    """Raise `ConfigurationError` where bytes are not multiplied faster than numbers: GPUs (here), processors without VNNI."""
    if device.type == "cpu" and has_vnni():
        return
    reason = (
        "this processor has no VNNI instructions" if device.type == "cpu" else f"it serves processors, and this run is on {device}"
    )
    raise ConfigurationError(f"an int8 base would not be faster: {reason}", where=KEY, allowed=["auto"], hint="Leave it out.")


def quantise(
    engine: Engine, loss: Callable[[Engine, Batch], Loss], batch: Batch, smallest: int = SMALLEST, least: float = AGREEMENT
) -> Quantised:
    """Put an `Int8Linear` at every frozen linear layer of the blocks that is large enough; also below what a method has attached.

    Embeddings, norms, the head and everything that is trained stay as they are. The method is attached already, since only then it
    is known what is frozen. Merging needs the base as it was: load it again.

    Args:
        loss, batch: what the run begins with: the columns' scales are taken from it, and the gradients compared on it.
        smallest: weights of a layer from which on it is quantised.
        least: the cosine that is asked for.

    Raises:
        ConfigurationError: no layer qualifies, so that the option would do nothing; or the gradients do not agree.
    """
    network = engine.model.network
    chosen, considered = _frozen_layers(network, smallest)
    watched = {path: Watched(host) for path, host in chosen.items()}
    for path, layer in watched.items():
        _put(network, path, layer)
    exact = gradients(engine, loss, batch)
    freed = 0
    for path, layer in watched.items():
        freed += layer.host.weight.nbytes - layer.host.weight.numel() - 4 * sum(layer.host.weight.shape)
        quantised = Int8Linear(layer.host, layer.reach_I)
        hand_over(layer.host, quantised)  # the adapters that stand on it
        _put(network, path, quantised)
    cosine = agreement(exact, gradients(engine, loss, batch))
    if cosine < least:
        raise ConfigurationError(
            f"an int8 base does not serve here: on the first batch the cosine of the gradients with those of the exact base is "
            f"{cosine:.4f}, and at least {least} is needed",
            where=KEY,
            allowed=["auto"],
            hint="Leave it out, and the base stays as it is.",
        )
    return Quantised(len(chosen), considered, freed, cosine)


def _frozen_layers(network: PreTrainedModel, smallest: int) -> tuple[dict[str, nn.Linear | Conv1D], int]:
    """The layers to quantise, by path, and how many linear layers there are."""
    layers = {path: layer for path, layer in linear_layers(network).items() if not layer.weight.requires_grad}
    held = next((path for path in layers if path.endswith(".base_layer")), None)  # what PEFT calls the layer that it wraps
    if held is not None:
        raise ConfigurationError(
            f"'{held.removesuffix('.base_layer')}' is wrapped by PEFT, which reads its weight as numbers",
            where=KEY,
            hint="Leave it out, or use a method with an entry of its own (`method: lora`).",
        )
    tied = {id(weight) for module in network.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()}
    chosen: dict[str, nn.Linear | Conv1D] = {}
    for path, layer in layers.items():
        assert isinstance(layer, nn.Linear | Conv1D)
        if not isinstance(layer, Int8Linear) and layer.weight.numel() >= smallest and id(layer.weight) not in tied:
            chosen[path] = layer
    if not chosen:
        raise ConfigurationError(
            f"none of the {len(layers)} frozen linear layers is large enough to be kept as int8",
            where=KEY,
            hint="Use it with a method that freezes the base (`method: lora`), on a base wider than 128.",
        )
    return chosen, len(layers)


def _put(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    hand_over(network.get_submodule(path), layer)
    setattr(network.get_submodule(parent), name, layer)


def quantised_numbers(network: nn.Module) -> int:
    """Weights that `network` holds as bytes; `network.parameters()` does not know them."""
    return sum(module.quantised_OI.numel() for module in network.modules() if isinstance(module, Int8Linear))


def gradients(engine: Engine, loss: Callable[[Engine, Batch], Loss], batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    """The gradient of the summed loss of `batch` at every trained parameter that has one; nothing is left behind in the engine.

    A new head's own gradient is left out where other parameters have one: it is large, right behind the base, and would hide them.
    """
    torch.manual_seed(derive(seed, "dropout", 0))
    loss(engine, batch).total.backward()
    found = {name: value.grad for name, value in engine.parameters.items() if value.grad is not None}
    engine.forget()
    return {name: value for name, value in found.items() if not name.startswith("head.")} or found


def agreement(exact: dict[str, Tensor], approximate: dict[str, Tensor]) -> float:
    """The cosine between two gradients, each taken as one long vector; 0 where one is nothing or not finite."""
    product = sum(
        float((value.double() * approximate[name].double()).sum()) for name, value in exact.items() if name in approximate
    )
    norms = [sum(float(value.double().square().sum()) for value in side.values()) for side in (exact, approximate)]
    cosine = product / (norms[0] * norms[1]) ** 0.5 if min(norms) > 0 else 0.0
    return cosine if abs(cosine) <= 1.0 + 1e-9 else 0.0
