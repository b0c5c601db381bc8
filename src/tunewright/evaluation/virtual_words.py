"""What the virtual tokens of a soft prompt stand near: words of the vocabulary, and each other.

Clusters are cut from an average-linkage tree over Euclidean distances; their number is what gives the largest mean silhouette,

    s = (b - a) / max(a, b),   a the mean distance to the own cluster, b that to the nearest other one, s = 0 for one that is alone.

The same is done with vectors of the same norms in random directions, many times: what random vectors give at their best is what
clusters must beat to mean anything.

Source: silhouettes, Rousseeuw 1987; the p-value of a randomisation test, (1 + as good or better) / (1 + draws), Phipson and Smyth
2010.
Shape suffixes: P virtual tokens, V words, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from tunewright.core.seeds import derive
from tunewright.engine.virtual import entry
from tunewright.models import Model

MOST_CLUSTERS = 10
FEWEST = 4  # virtual tokens below which clusters say nothing
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Word:
    """A token of the vocabulary near a virtual one.

    Args:
        id: its number.
        text: what it decodes to.
        cosine: of the angle between the two vectors.
    """

    id: int
    text: str
    cosine: float


@dataclass(frozen=True)
class Clusters:
    """How virtual tokens stand together.

    Args:
        of: the cluster of each virtual token, from 0, in the order in which clusters first appear.
        silhouette: mean over the virtual tokens, -1 to 1: how much nearer they are to their own cluster than to the next.
        random: the mean of the same over random directions; low and high, between which 95 % of those lie.
        p: how probable a silhouette at least as large is for random directions.
        draws: how many were made.
    """

    of: tuple[int, ...]
    silhouette: float
    random: float
    low: float
    high: float
    p: float
    draws: int

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(set(self.of))

    @property
    def sentence(self) -> str:
        """The finding in words."""
        against = f"random directions of the same norms: {self.random:.3f} ({self.low:.3f} to {self.high:.3f})"
        verdict = "tighter than chance" if self.p < 0.05 else "no tighter than chance"
        return f"{self.count} clusters, silhouette {self.silhouette:.3f}; {against}, p = {self.p:.3f}: {verdict}"


@torch.no_grad()
def nearest_words(model: Model, vectors_PD: Tensor, count: int) -> list[list[Word]]:
    """For each virtual token the `count` tokens of the vocabulary whose embeddings point most nearly where it does."""
    ids = sorted(set(model.tokenizer.get_vocab().values()))
    table_VD = entry(model).weight.detach()[torch.tensor(ids, device=entry(model).weight.device)].float()
    unit_VD = torch.nn.functional.normalize(table_VD, dim=1)
    cosines_PV = torch.nn.functional.normalize(vectors_PD.float().to(unit_VD.device), dim=1) @ unit_VD.T
    best, places = cosines_PV.topk(min(count, len(ids)), dim=1)
    return [
        [Word(ids[place], _text(model, ids[place]), cosine) for place, cosine in zip(found, values, strict=True)]
        for found, values in zip(places.tolist(), best.tolist(), strict=True)
    ]


def _text(model: Model, token: int) -> str:
    text = str(model.tokenizer.decode([token]))
    return text if text and "\ufffd" not in text else str(model.tokenizer.convert_ids_to_tokens(token))


def clusters(vectors_PD: Tensor, *, draws: int = 199, seed: int = 0) -> Clusters | None:
    """The clusters of some vectors, and how much they are worth; None for fewer than four, or where all are the same.

    Args:
        draws: sets of random directions to compare with.
        seed: they are drawn from.
    """
    vectors: Array = vectors_PD.detach().double().cpu().numpy()
    if len(vectors) < FEWEST:
        return None
    found = _cut(vectors)
    if found is None:
        return None
    silhouette, labels = found
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    generator = np.random.default_rng(derive(seed, "virtual words"))
    values = []
    for _ in range(draws):
        drawn = generator.standard_normal(vectors.shape)
        cut = _cut(drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * norms)
        values.append(cut[0] if cut is not None else -1.0)
    low, high = np.quantile(values, [0.025, 0.975])
    order = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return Clusters(
        of=tuple(order[label] for label in labels),
        silhouette=silhouette,
        random=float(np.mean(values)),
        low=float(low),
        high=float(high),
        p=(1 + sum(value >= silhouette for value in values)) / (1 + draws),
        draws=draws,
    )


def _cut(vectors: Array) -> tuple[float, list[int]] | None:
    """The best mean silhouette of 2 to 10 clusters, and the cluster of each vector."""
    distances = pdist(vectors)
    if not distances.any():
        return None
    tree, square = linkage(distances, "average"), squareform(distances)
    best: tuple[float, list[int]] | None = None
    for count in range(2, min(MOST_CLUSTERS, len(vectors) - 1) + 1):
        labels = fcluster(tree, count, "maxclust")
        if not 1 < labels.max() < len(vectors):
            continue
        value = silhouette(square, labels - 1)
        if best is None or value > best[0]:
            best = value, [int(label) for label in labels]
    return best


def silhouette(distances_PP: Array, labels_P: NDArray[np.intp]) -> float:
    """The mean silhouette, as scikit-learn's `silhouette_score`, which takes a hundred times as long on so few vectors.

    Args:
        distances_PP: between the vectors.
        labels_P: the cluster of each, from 0 without gaps; at least two.
    """
    member_PC = np.eye(labels_P.max() + 1)[labels_P]
    sizes_C, sums_PC = member_PC.sum(axis=0), distances_PP @ member_PC
    alone_P = sizes_C[labels_P] == 1
    own_P = (sums_PC * member_PC).sum(axis=1) / np.maximum(sizes_C[labels_P] - 1, 1)
    other_P = np.where(member_PC > 0, np.inf, sums_PC / sizes_C).min(axis=1)
    larger_P = np.maximum(np.maximum(own_P, other_P), np.finfo(np.float64).tiny)
    return float(np.where(alone_P, 0.0, (other_P - own_P) / larger_P).mean())
