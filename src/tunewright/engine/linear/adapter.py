"""What a layer carries: the low-rank change of one tuning. How several are computed together is in `product` and `carrying`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D

from tunewright.models.attached import Attached


class Change(Attached):
    """scale * B A beside the weight of a layer of any kind, as `load_on` and merging ask for it.

    A subclass says what A and B are (`pair`), from whatever parameters it has, and how the host's weight becomes [O, I]. Parameters
    and buffers stay float32 wherever the network goes.

    Args:
        host: the layer.
        scale: what B A is multiplied by.
        drop: probability of dropping an input of A while training.

    Attributes:
        enabled: whether it changes anything now.
        folded: whether the change is in the host's weight at present, and so is not computed beside it.
        magnitude_O: DoRA's magnitudes, one an output; None without.
    """

    names: ClassVar[dict[str, str]] = {}
    """What PEFT calls the parameters in its files, to the attributes that they are here."""
    rank: int
    magnitude_O: nn.Parameter | None

    def __init__(self, host: nn.Module, scale: float, drop: float = 0.0) -> None:
        super().__init__()
        self.scale, self.drop, self.enabled, self.folded = scale, drop, True, False
        self.register_parameter("magnitude_O", None)
        self.stand_on(host)

    def stand_on(self, host: nn.Module) -> None:
        """`host` is the layer from now on: another may take its place, with its weight held in another way."""
        self._host = (host,)  # in a tuple, for the host is this module's parent and not its child

    @property
    def host(self) -> nn.Module:
        """The layer that is changed."""
        return self._host[0]

    def pair(self) -> tuple[Tensor, Tensor]:
        """A [R, I] and B [O, R], float32; gradients flow through them to the parameters that they are made of."""
        raise NotImplementedError

    def laid(self, weight: Tensor) -> Tensor:
        """The host's weight as [O, I], one row an output, or such a matrix as the host lays it; a view."""
        return weight

    def weigh(self) -> None:
        """Decompose the weight into magnitude and direction (DoRA): from now on outputs have a trained magnitude of their own.

        Source: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353.
        """
        self.magnitude_O = nn.Parameter(self._norms_O())

    @property
    def gained(self) -> bool:
        """Whether `gain` gives anything."""
        return self.magnitude_O is not None

    def gain(self) -> Tensor | None:
        """What the layer's output without its bias is multiplied by, change included, [O]; None for nothing.

        magnitude / |W + scale * B A|, a norm a row; no gradient flows through the norm (section 4.3 of DoRA, and PEFT).
        """
        return None if self.magnitude_O is None else self.magnitude_O / self._norms_O()

    @torch.no_grad()
    def _norms_O(self) -> Tensor:
        """|W + s B A| of each row, float32: |W|^2 + 2 s (W A^T) . B + s^2 (B A A^T) . B, so that [O, I] is read and never made."""
        A_RI, B_OR = self.pair()
        W_OI = self.laid(weight_of(self.host))
        with torch.autocast(W_OI.device.type, enabled=False):
            cross_OR = (W_OI @ A_RI.to(W_OI.dtype).T).float() * 2 + (B_OR @ (A_RI @ A_RI.T)) * self.scale
            squares_O = torch.linalg.vector_norm(W_OI, dim=1, dtype=torch.float32).square_()
            squares_O += (cross_OR * B_OR).sum(1) * self.scale
        return squares_O.clamp_min_(torch.finfo(torch.float32).tiny).sqrt_()

    @property
    def mergeable(self) -> bool:
        """Whether the change is of the shape of its host's weight."""
        return True

    @torch.no_grad()
    def put(self, A_RI: Tensor, B_OR: Tensor) -> None:
        """Make A and B these matrices, as `pair` would give them. Raises `ValueError` where they are made of something else."""
        raise ValueError(f"the matrices of {type(self).__name__} cannot be set")

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Make the change `factor` times as large. Raises `ValueError` where it is not proportional to anything that is kept."""
        raise ValueError(f"the size of {type(self).__name__} cannot be set")

    @property
    def wet(self) -> bool:
        """Whether a forward pass would draw a dropout mask now."""
        return self.drop > 0 and self.training

    @torch.no_grad()
    def change(self) -> Tensor:
        """What merging adds to the host's weight, float32, in the host's own orientation."""
        A_RI, B_OR = self.pair()
        change_OI = (B_OR @ A_RI) * self.scale
        gain_O = self.gain()
        if gain_O is not None:
            W_OI = self.laid(weight_of(self.host)).float()
            change_OI = (W_OI + change_OI) * gain_O[:, None] - W_OI
        return self.laid(change_OI)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Change:
        """Follow the network to another device, but not to fewer digits: the parameters are the masters that training adds to."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(fn(parameter.data).device)
        for name, buffer in self.named_buffers():
            setattr(self, name, buffer.to(fn(buffer).device))
        return self


def weight_of(host: nn.Module) -> Tensor:
    """The weight of a layer as numbers, in the layer's own orientation; where it is kept in fewer bits, made anew at each call.

    Serves plain layers, `engine.int8`, tensors that know how to `dequantize` (torchao), and bitsandbytes' four bits.
    """
    held = host.weight
    assert isinstance(held, Tensor)
    if hasattr(held, "quant_state"):
        from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]

        return dequantize_4bit(held.data, held.quant_state)  # pyright: ignore[reportAttributeAccessIssue]
    held = held.detach()
    return held if type(held).dequantize is Tensor.dequantize else held.dequantize()


def holds_numbers(host: nn.Module) -> bool:
    """Whether a layer's weight is a parameter of ordinary numbers, to which a change can be added."""
    held = host._parameters.get("weight")
    if held is None or not held.is_floating_point() or hasattr(held, "quant_state"):
        return False
    return type(held.detach()).dequantize is Tensor.dequantize


class Adapter(Change):
    """A change of one linear layer, y + scale * B A dropout(x), as the fused product asks for it.

    Args:
        host: the layer, nn.Linear (or what stands in for one) or GPT-2's Conv1D, whose weight is transposed.

    Raises:
        TypeError: `host` is no linear layer.
    """

    def __init__(self, host: nn.Module, scale: float, drop: float = 0.0) -> None:
        super().__init__(host, scale, drop)
        if isinstance(host, nn.Linear):
            self.outputs, self.inputs, self.transposed = host.out_features, host.in_features, False
        elif isinstance(host, Conv1D):
            self.outputs, self.inputs, self.transposed = host.nf, host.nx, True
        else:
            raise TypeError(f"a LoRA stands on a linear layer, not on {type(host).__name__}")

    def laid(self, weight: Tensor) -> Tensor:
        """The weight itself, or transposed for GPT-2's Conv1D."""
        return weight.T if self.transposed else weight

    def forward(self, x_TI: Tensor) -> Tensor:
        """scale * B A dropout(x), [T, O], operation by operation: where dropout or a trained host rules out the fused product."""
        dropped_TI = dropout(x_TI, self.drop, self.training) if self.drop else x_TI
        return self._low(dropped_TI)

    def _low(self, x_TI: Tensor) -> Tensor:
        A_RI, B_OR = self.pair()
        if not torch.is_autocast_enabled(x_TI.device.type):
            x_TI = x_TI.to(A_RI.dtype)
        return linear(linear(x_TI, A_RI), B_OR) * self.scale

    def beside(self, x_TI: Tensor, y_TO: Tensor) -> Tensor:
        """What is added to y, the host's output for x, operation by operation, [T, O].

        With a gain and dropout, the host's part is scaled for the inputs that were not dropped, which is PEFT's rule.
        """
        gain_O = self.gain()
        if gain_O is None:
            return self(x_TI)
        if not self.wet:
            bias_O = self.host._parameters.get("bias")
            plain_TO = y_TO if bias_O is None else y_TO - bias_O
            return (gain_O - 1) * plain_TO + gain_O * self(x_TI)
        dropped_TI = dropout(x_TI, self.drop, True)
        W_OI = self.laid(weight_of(self.host))
        return (gain_O - 1) * linear(dropped_TI, W_OI.to(dropped_TI.dtype)) + gain_O * self._low(dropped_TI)


class LoRAAdapter(Adapter):
    """scale * B A dropout(x), with A and B trained.

    Args:
        rank: R, the inner width of the change.
        scale: alpha / rank, or alpha / sqrt(rank) when rank-stabilised.
        seed: A is drawn from it (Kaiming uniform, as PEFT and the paper's code do), B starts at zero; `starts` has other ways.
    """

    names: ClassVar[dict[str, str]] = {"lora_A.weight": "A_RI", "lora_B.weight": "B_OR"}
    A0_RI: Tensor
    B0_OR: Tensor

    def __init__(self, host: nn.Module, rank: int, scale: float, drop: float, seed: int) -> None:
        super().__init__(host, scale, drop)
        self.rank, self.shifted = rank, False
        bound = math.sqrt(6 / ((1 + 5) * self.inputs))  # kaiming_uniform_ with a = sqrt(5)
        generator = torch.Generator().manual_seed(seed)
        drawn_RI = torch.empty(rank, self.inputs).uniform_(-bound, bound, generator=generator)
        device = next(iter(host.parameters()), drawn_RI).device
        self.A_RI = nn.Parameter(drawn_RI.to(device))
        self.B_OR = nn.Parameter(torch.zeros(self.outputs, rank, device=device))

    @torch.no_grad()
    def shift(self, A_RI: Tensor, B_OR: Tensor) -> None:
        """Start at B A and subtract that product: the change is B A - B0 A0, and the base keeps its weights."""
        self.shifted = True
        self.A_RI.copy_(A_RI)
        self.B_OR.copy_(B_OR)
        self.register_buffer("A0_RI", self.A_RI.clone(), persistent=False)
        self.register_buffer("B0_OR", self.B_OR.clone(), persistent=False)

    def pair(self) -> tuple[Tensor, Tensor]:
        """The parameters themselves; if they are shifted, [A - A0; A0] and [B, B - B0], of twice the rank and exactly 0 first."""
        if not self.shifted:
            return self.A_RI, self.B_OR
        return torch.cat((self.A_RI - self.A0_RI, self.A0_RI)), torch.cat((self.B_OR, self.B_OR - self.B0_OR), dim=1)

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Make the change `factor` times as large, by B."""
        self.B_OR.mul_(factor)
        if self.shifted:
            self.B0_OR.mul_(factor)

    @torch.no_grad()
    def put(self, A_RI: Tensor, B_OR: Tensor) -> None:
        """Copy into the parameters. Raises `ValueError` where a product is subtracted."""
        if self.shifted:
            raise ValueError("what is subtracted cannot be set")
        self.A_RI.copy_(A_RI)
        self.B_OR.copy_(B_OR)
