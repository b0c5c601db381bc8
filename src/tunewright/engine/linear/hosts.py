"""Embeddings and convolutions that carry low-rank changes, as PEFT has them.

    embedding     y = E[x] + scale * (B A)^T[x]                A [R, vocabulary], B [width, R]
    convolution   y = W * x + b + scale * (B * (A * dropout(x)))   A [R, inputs, kernel], B [outputs, R / groups, 1]

Each change is added by a hook behind the layer's own forward, so a layer may carry those of several tunings and keeps its class and
whatever else stands around it. Tensor suffixes: T flat tokens, R rank, V vocabulary, D width, X the positions of a convolution.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, conv3d, dropout, embedding

from tunewright.engine.linear.adapter import Change, weight_of
from tunewright.models.lanes import Lanes

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLVE = {3: conv1d, 4: conv2d, 5: conv3d}  # by the dimensions of the weight


class Hooked(Change):
    """A change that is added behind its host's forward, where the tokens of its tuning stand."""

    def join(self, lanes: Lanes, tuning: int) -> None:
        """Begin to change the host's output."""
        self._lanes, self._tuning = lanes, tuning
        self._hook = self.host.register_forward_hook(self._behind)

    def leave(self) -> None:
        """Change nothing any more."""
        self._hook.remove()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The host's output y for x, with the change everywhere."""
        raise NotImplementedError

    def own(self, y: Tensor) -> list[tuple[int, int]] | None:
        """Which part of y's first dimension, or of its flat tokens, belongs to the tuning; None for all of it."""
        raise NotImplementedError

    def _behind(self, host: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor | None:
        if not self.enabled or (self._lanes.runs and self._tuning not in {run.tuning for run in self._lanes.runs}):
            return None
        changed = self(inputs[0], y).to(y.dtype)
        own = self.own(y)
        if own is None:
            return changed
        flat = y.clone() if self.per_row else y.reshape(-1, y.shape[-1]).clone()
        changed = changed.reshape(flat.shape)
        for start, stop in own:
            flat[start:stop] = changed[start:stop]
        return flat.view(y.shape)

    per_row = False
    """Whether y's rows, and not its tokens, are what belongs to a tuning."""

    def _spans(self, count: int) -> list[tuple[int, int]] | None:
        """The flat tokens of the tuning among `count`; None for all.

        Raises:
            ValueError: several tunings stand here, and nothing says whose tokens these are.
        """
        runs = self._lanes.runs
        if len(runs) > 1:
            if runs[-1].stop != count:
                raise ValueError(f"the lanes end at token {runs[-1].stop} and a layer was given {count} tokens")
            return [(run.start, run.stop) for run in runs if run.tuning == self._tuning]
        beside = [one for one in self.host.children() if isinstance(one, Hooked) and one.enabled]
        if not runs and len(beside) > 1:
            raise ValueError(f"{len(beside)} tunings stand on one layer, and no lanes say whose tokens these are")
        return None


class EmbeddingAdapter(Hooked):
    """scale * (B A)^T[x] beside the rows of an embedding; A starts at zero, B is drawn from a normal distribution.

    Args:
        host: the embedding. One that scales its output (`embed_scale`: Gemma, BART) scales the change too.
    """

    names: ClassVar[dict[str, str]] = {"lora_embedding_A": "A_RI", "lora_embedding_B": "B_OR"}

    def __init__(self, host: nn.Embedding, rank: int, scale: float, seed: int) -> None:
        super().__init__(host, scale)
        self.rank, device = rank, weight_of(host).device
        self.inputs, self.outputs = host.num_embeddings, host.embedding_dim
        drawn_DR = torch.randn(self.outputs, rank, generator=torch.Generator().manual_seed(seed))
        self.A_RI = nn.Parameter(torch.zeros(rank, self.inputs, device=device))
        self.B_OR = nn.Parameter(drawn_DR.to(device))

    def pair(self) -> tuple[Tensor, Tensor]:
        """The parameters themselves, A [R, V] and B [D, R]."""
        return self.A_RI, self.B_OR

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Make the change `factor` times as large, by B."""
        self.B_OR.mul_(factor)

    @torch.no_grad()
    def put(self, A_RI: Tensor, B_OR: Tensor) -> None:
        """Copy into the parameters, A [R, V] and B [D, R]."""
        self.A_RI.copy_(A_RI)
        self.B_OR.copy_(B_OR)

    def laid(self, weight: Tensor) -> Tensor:
        """The rows of the vocabulary are the weight's columns here."""
        return weight.T

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[..., D] for token ids x; negative ones, which stand for virtual tokens, are left as they are."""
        host = self.host
        assert isinstance(host, nn.Embedding)
        virtual = bool(self._lanes.begins)
        low = embedding(x.clamp_min(0) if virtual else x, self.A_RI.T, host.padding_idx)
        added = low @ self.B_OR.T * (self.scale * getattr(host, "embed_scale", 1.0))
        gain_D = self.gain()
        changed = y + added if gain_D is None else (y + added) * gain_D
        return torch.where(x[..., None] < 0, y, changed) if virtual else changed

    def own(self, y: Tensor) -> list[tuple[int, int]] | None:
        """Spans of flat tokens."""
        return self._spans(y.numel() // y.shape[-1])


class ConvolutionAdapter(Hooked):
    """scale * B * (A * dropout(x)) beside a convolution; A has the host's kernel and starts Kaiming uniform, B is 1 wide and zero.

    Args:
        host: nn.Conv1d, Conv2d or Conv3d, padded with zeros. With groups, the rank is divided into as many, and A reads all inputs,
            as in PEFT, so such a change is of no shape that the weight has, and cannot be merged.

    Raises:
        ValueError: the rank is no multiple of the groups, or the padding is of another kind.
    """

    names: ClassVar[dict[str, str]] = {"lora_A.weight": "A", "lora_B.weight": "B"}
    per_row = True

    def __init__(self, host: Convolution, rank: int, scale: float, drop: float, seed: int) -> None:
        super().__init__(host, scale, drop)
        if host.padding_mode != "zeros":
            raise ValueError(f"a convolution that is padded by '{host.padding_mode}' is not served")
        if rank % host.groups:
            raise ValueError(f"a rank of {rank} is no multiple of the convolution's {host.groups} groups")
        self.rank, self.groups, self._shape = rank, host.groups, host.weight.shape
        drawn = torch.empty(rank, host.in_channels, *host.kernel_size)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed))
        ones = (1,) * len(host.kernel_size)
        self.A = nn.Parameter(drawn.to(host.weight.device))
        self.B = nn.Parameter(torch.zeros(host.out_channels, rank // host.groups, *ones, device=host.weight.device))

    def pair(self) -> tuple[Tensor, Tensor]:
        """A [R, inputs * kernel] and B [O, R]. Raises `ValueError` with groups, whose change has no such form."""
        if self.groups > 1:
            raise ValueError("a change beside a convolution with groups is of no shape that its weight has")
        return self.A.flatten(1), self.B.flatten(1)

    @property
    def mergeable(self) -> bool:
        """Not with groups."""
        return self.groups == 1

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Make the change `factor` times as large, by B."""
        self.B.mul_(factor)

    @torch.no_grad()
    def put(self, A_RI: Tensor, B_OR: Tensor) -> None:
        """Copy into the parameters, A [R, inputs * kernel] and B [O, R]."""
        self.A.copy_(A_RI.view_as(self.A))
        self.B.copy_(B_OR.view_as(self.B))

    def laid(self, weight: Tensor) -> Tensor:
        """One row an output, or such rows as the kernels that they are."""
        return weight.flatten(1) if weight.dim() > 2 else weight.view(self._shape)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B, O, X] for x [B, I, X]."""
        host = self.host
        assert isinstance(host, Convolution)
        convolve: Any = _CONVOLVE[self.A.dim()]
        dropped = dropout(x, self.drop, self.training) if self.drop else x
        low = convolve(dropped, self.A.to(x.dtype), None, host.stride, host.padding, host.dilation)
        added = convolve(low, self.B.to(x.dtype), groups=self.groups) * self.scale
        gain_O = self.gain()
        if gain_O is None:
            return y + added
        wide = (-1,) + (1,) * (self.A.dim() - 2)
        bias = 0 if host.bias is None else host.bias.view(wide)
        plain = y - bias
        if self.wet:
            plain = convolve(dropped, host.weight, None, host.stride, host.padding, host.dilation)
        gain = gain_O.to(y.dtype).view(wide)
        return y + (gain - 1) * plain + gain * added

    def own(self, y: Tensor) -> list[tuple[int, int]] | None:
        """Whole rows: a convolution mixes the tokens of one.

        Raises:
            ValueError: a row belongs to more than one tuning.
        """
        length = y[0, 0].numel()
        spans = self._spans(len(y) * length)
        if spans is not None and any(place % length for span in spans for place in span):
            raise ValueError("a convolution mixes the tokens of a row, and a row belongs to several tunings here")
        return None if spans is None else [(start // length, stop // length) for start, stop in spans]
