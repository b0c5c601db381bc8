"""How the matrices of a LoRA on a linear layer begin, beside the ordinary way (A Kaiming uniform, B zero).

    gaussian       A ~ N(0, 1 / rank^2), B = 0                                                                            (PEFT)
    orthogonal     A and B from the odd and the even rows of one orthogonal matrix, so that B A = 0 and both learn at once (PEFT)
    pissa          A = sqrt(S / scale) V^T and B = U sqrt(S / scale) of the weight's largest singular values: arXiv 2404.02948
    pissa_niter_k  the same by a randomised decomposition with k power iterations, in a fraction of the time
    olora          B = Q and A = R, the first columns and rows of a QR decomposition of the weight: arXiv 2406.01775

The last three begin at B A != 0, and their papers subtract it from the base's weight. Here the adapter subtracts it
(`LoRAAdapter.shift`): the base stays as it was, for other tunings too, at the price of twice the rank in the product.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from tunewright.engine.linear.adapter import LoRAAdapter, weight_of

STARTS = r"kaiming|gaussian|orthogonal|olora|pissa|pissa_niter_[1-9][0-9]?"
SHIFTED = re.compile(r"pissa|olora")


@torch.no_grad()
def begin(adapter: LoRAAdapter, start: str, seed: int) -> None:
    """Give the adapter's matrices their first values.

    Args:
        start: one of the names above.
        seed: what is drawn is a function of it.

    Raises:
        ValueError: the rank is odd (`orthogonal`), or more than the weight has singular values (`pissa`, `olora`).
    """
    generator = torch.Generator().manual_seed(seed)
    rank = adapter.rank
    if start == "gaussian":
        adapter.A_RI.copy_(torch.randn(adapter.A_RI.shape, generator=generator) / rank)
    elif start == "orthogonal":
        _orthogonal(adapter, generator)
    elif SHIFTED.match(start):
        most = min(adapter.inputs, adapter.outputs)
        if rank > most:
            raise ValueError(f"a rank of {rank} is more than the {most} that its weight has, and `{start}` begins at the weight")
        W_OI = adapter.laid(weight_of(adapter.host)).float()
        adapter.shift(*(_qr(W_OI, rank) if start == "olora" else _singular(W_OI, rank, adapter.scale, start, seed)))


def _orthogonal(adapter: LoRAAdapter, generator: torch.Generator) -> None:
    rank = adapter.rank
    if rank % 2:
        raise ValueError(f"a rank of {rank} is odd, and `orthogonal` shares an even number between A and B")
    rows_RR, _ = torch.linalg.qr(torch.randn(rank, rank, generator=generator))
    wide = (torch.randn(size, rank // 2, generator=generator) / 10 for size in (adapter.inputs, adapter.outputs))
    adapter.A_RI.copy_((next(wide) @ rows_RR[0::2]).T)
    adapter.B_OR.copy_(next(wide) @ rows_RR[1::2])


def _singular(W_OI: Tensor, rank: int, scale: float, start: str, seed: int) -> tuple[Tensor, Tensor]:
    if start == "pissa":
        U_OR, S_R, V_RI = torch.linalg.svd(W_OI, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[W_OI.device] if W_OI.is_cuda else []):
            torch.manual_seed(seed)
            U_OR, S_R, V_IR = torch.svd_lowrank(W_OI, rank, niter=int(start.rpartition("_")[2]))
        V_RI = V_IR.T
    root_R = (S_R[:rank] / scale).sqrt()
    return root_R[:, None] * V_RI[:rank], U_OR[:, :rank] * root_R


def _qr(W_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    Q_OK, R_KI = torch.linalg.qr(W_OI)
    return R_KI[:rank], Q_OK[:, :rank]
