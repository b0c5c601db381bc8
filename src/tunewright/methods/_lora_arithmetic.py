"""LoRAs of one base made into one: weighted sums, exactly or at a smaller rank, and subtraction by negative weights.

With tuning i changing a layer by s_i B_i A_i, and weights w_i:
    concatenation   [B_1 .. B_n] [w_1 s_1 A_1; ..; w_n s_n A_n] = sum_i w_i s_i B_i A_i: exact, of the summed rank
    svd             the product of a given rank that is nearest to that sum (in the sum of squares)
    linear          (sum_i sqrt|w_i s_i| B_i) (sum_i sign(w_i s_i) sqrt|w_i s_i| A_i): keeps the rank, and is NOT the weighted sum
                    of the changes, for it multiplies each B with every A. What PEFT calls `linear`; here for parity with it.

The semantics are those of PEFT's `add_weighted_adapter` with `combination_type` `cat`, `svd` and `linear`. Tunings may stand on
different layers; one that does not stand on a layer adds nothing there. What is made is a LoRA like any other, with scale 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigurationError
from tunewright.methods._lora_tuning import LowRankTuning
from tunewright.methods.lora import LoRA, LoRATuning

if TYPE_CHECKING:
    from torch import Tensor

    Part = tuple[float, Tensor, Tensor]  # w s, A [R, I], B [O, R]
    Pair = tuple[Tensor, Tensor]


def concatenation(tunings: Sequence[LowRankTuning], weights: Sequence[float]) -> LoRATuning:
    """The weighted sum of what `tunings` change, exactly, as one LoRA whose rank at each layer is the sum of theirs.

    Args:
        tunings: on one model; they stay there, and the new one joins them under a number of its own.
        weights: one each; a negative one subtracts what that tuning learned.

    Raises:
        ConfigurationError: nothing is given, the numbers of tunings and weights differ, they stand on different models, or one is
            no sum of products (with magnitudes of its own, or beside a convolution with groups).
    """
    return _made(tunings, {path: _concatenated(parts) for path, parts in _parts(tunings, weights).items()})


def svd(tunings: Sequence[LowRankTuning], weights: Sequence[float], rank: int) -> LoRATuning:
    """The LoRA of `rank` that is nearest to the weighted sum of what `tunings` change; exact where the sum has no higher rank.

    Args and errors as `concatenation`. The sum is never made: factors are, of [O, R] and [R, I].
    """
    pairs = {path: _truncated(*_concatenated(parts), rank) for path, parts in _parts(tunings, weights).items()}
    return _made(tunings, pairs)


def linear(tunings: Sequence[LowRankTuning], weights: Sequence[float]) -> LoRATuning:
    """Matrices A and B that are weighted sums of the tunings' matrices, of their rank; no sum of what they change (see above).

    Args as `concatenation`.

    Raises:
        ConfigurationError: as `concatenation`; or the ranks at a layer differ.
    """
    pairs: dict[str, Pair] = {}
    for path, parts in _parts(tunings, weights).items():
        ranks = {len(A_RI) for _, A_RI, _ in parts}
        if len(ranks) > 1:
            raise ConfigurationError(
                f"ranks {sorted(ranks)} at '{path}' cannot be added matrix by matrix", hint="Use `concatenation` or `svd`."
            )
        roots = [abs(factor) ** 0.5 for factor, _, _ in parts]
        signs = [1.0 if factor >= 0 else -1.0 for factor, _, _ in parts]
        A_RI = sum(sign * root * A_RI for sign, root, (_, A_RI, _) in zip(signs, roots, parts, strict=True))
        B_OR = sum(root * B_OR for root, (_, _, B_OR) in zip(roots, parts, strict=True))
        pairs[path] = A_RI, B_OR  # pyright: ignore[reportArgumentType]
    return _made(tunings, pairs)


def _parts(tunings: Sequence[LowRankTuning], weights: Sequence[float]) -> dict[str, list[Part]]:
    """What is added up at each layer."""
    if not tunings or len(tunings) != len(weights):
        raise ConfigurationError(f"{len(tunings)} tunings and {len(weights)} weights; one weight each is needed")
    if len({id(tuning.model.network) for tuning in tunings}) > 1:
        raise ConfigurationError("the tunings stand on different models", hint="Attach and load them on one.")
    found: dict[str, list[Part]] = {}
    for tuning, weight in zip(tunings, weights, strict=True):
        for path, layer in tuning.layers.items():
            if layer.gained or not layer.mergeable:
                reason = "has magnitudes of its own" if layer.gained else "stands beside a convolution with groups"
                raise ConfigurationError(f"the change at '{path}' {reason}, and is no product that could be added to others")
            A_RI, B_OR = (matrix.detach() for matrix in layer.pair())
            found.setdefault(path, []).append((weight * layer.scale, A_RI, B_OR))
    return found


def _concatenated(parts: Sequence[Part]) -> Pair:
    import torch

    return torch.cat([factor * A_RI for factor, A_RI, _ in parts]), torch.cat([B_OR for _, _, B_OR in parts], dim=1)


def _truncated(A_RI: Tensor, B_OR: Tensor, rank: int) -> Pair:
    """B A at a smaller rank: with B = Q_b R_b and A = (Q_a R_a)^T, the singular values are those of the small R_b R_a^T."""
    import torch
    from torch.nn.functional import pad

    Q_OK, over_KR = torch.linalg.qr(B_OR)
    Q_IK, under_KR = torch.linalg.qr(A_RI.T)
    U_KS, S_S, V_SK = torch.linalg.svd(over_KR @ under_KR.T, full_matrices=False)
    missing = max(rank - len(S_S), 0)
    A_RI = V_SK[:rank] @ Q_IK.T
    B_OR = Q_OK @ (U_KS[:, :rank] * S_S[:rank])
    return pad(A_RI, (0, 0, 0, missing)), pad(B_OR, (0, missing))


def _made(tunings: Sequence[LowRankTuning], pairs: Mapping[str, Pair]) -> LoRATuning:
    """A LoRA of scale 1 with these matrices, beside the tunings that it was made of."""
    ranks = {path: len(A_RI) for path, (A_RI, _) in pairs.items()}
    widest = max(ranks.values())
    other = {path: rank for path, rank in ranks.items() if rank != widest}
    alphas: dict[str, float] = {path: float(rank) for path, rank in other.items()}
    method = LoRA(rank=widest, alpha=float(widest), rank_pattern=other, alpha_pattern=alphas, targets=tuple(pairs))
    made = method.attach(tunings[0].model, 0)
    for path, (A_RI, B_OR) in pairs.items():
        made.layers[path].put(A_RI, B_OR)
    return made
