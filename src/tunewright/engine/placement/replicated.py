"""The whole network on every process: each computes its share of a step's micro-batches, then gradients are summed.

This is the right placement for adapters: the base is frozen, so only the adapter's few gradients travel, as one flat buffer.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from tunewright.engine.placement import Placement, ProcessLostError

BUCKET = 64 << 20  # numbers of one flat buffer; an adapter is one, the gradients of a whole network are a few

# How a broken connection reads; gloo raises a plain RuntimeError for it.
_BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "Application timeout")


class Replicated(Placement):
    """Every process holds everything that is trained, and all make the same update.

    Source: Li et al., "PyTorch Distributed", arXiv 2006.15704 (data parallelism), with sums in place of means.
    """

    name = "replicate"

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or any(words in str(error) for words in _BROKEN):
                raise ProcessLostError(
                    f"process {self.process.rank} of {self.process.world} lost another one of the run",
                    hint="What that one said before it ended is the reason. Continue with `tunewright resume`.",
                ) from error
            raise

    def tell(self, value: Any) -> Any:
        content = json.dumps(value).encode() if self.leads else b""
        with self.guarded():
            length = torch.tensor([len(content)])
            dist.broadcast(length, 0)
            letters = _letters(content) if self.leads else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(letters, 0)
        return json.loads(bytes(letters.tolist()))  # on the first process too, so that all hold the same kinds of values

    def gather(self, value: Any) -> list[Any]:
        content = json.dumps(value).encode()
        lengths = [int(length) for length in self._gathered(torch.tensor([len(content)]))]
        longest = max(lengths)
        found = self._gathered(torch.nn.functional.pad(_letters(content), (0, longest - len(content))))
        return [json.loads(bytes(letters[:length].tolist())) for letters, length in zip(found, lengths, strict=True)]

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.process.world)]
        with self.guarded():
            dist.all_gather(found, tensor)
        return found

    def any(self, flag: bool) -> bool:
        return self.sum_numbers([float(flag)])[0] > 0

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        sums = torch.tensor(list(numbers), dtype=torch.float64)
        with self.guarded():
            dist.all_reduce(sums)
        return sums.tolist()

    @torch.no_grad()
    def sum_gradients(self, parameters: Mapping[str, Parameter]) -> None:
        held = [parameter for parameter in parameters.values() if not _is_divided(parameter)]
        for bucket in _buckets(held):
            self._sum(bucket)

    def _sum(self, bucket: Sequence[Parameter]) -> None:
        """One all-reduce: first which gradients exist at all, then the gradients; a process without one adds zeros."""
        has = bucket[0].new_tensor([float(parameter.grad is not None) for parameter in bucket])
        parts = [torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten() for one in bucket]
        flat = torch.cat([has, *parts])
        with self.guarded():
            dist.all_reduce(flat)
        counts, *sums = flat.split([len(bucket), *(parameter.numel() for parameter in bucket)])
        for parameter, count, total in zip(bucket, counts.tolist(), sums, strict=True):
            if not count:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().whole(tensors) if self.leads else {}

    def given(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = self.tell({name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in tensors.items()})
        found = {}
        for name, (shape, dtype) in shapes.items():
            whole = tensors[name].contiguous() if self.leads else torch.empty(shape, dtype=getattr(torch, dtype))
            with self.guarded():
                dist.broadcast(whole, 0)
            found[name] = whole
        return found


def _buckets(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """Neighbours of one kind, together at most `BUCKET` numbers (or one tensor)."""
    bucket: list[Parameter] = []
    filled = 0
    for parameter in parameters:
        other = bucket and (bucket[0].dtype, bucket[0].device) != (parameter.dtype, parameter.device)
        if bucket and (other or filled + parameter.numel() > BUCKET):
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += parameter.numel()
    if bucket:
        yield bucket


def _is_divided(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _letters(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
