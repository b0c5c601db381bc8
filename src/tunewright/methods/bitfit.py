"""BitFit: train the biases of a frozen base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.methods import Method
from tunewright.methods._selection import by_kind, own_parameters
from tunewright.methods._weights import PartTuning

if TYPE_CHECKING:
    from tunewright.models import Model


class BitFit(Method):
    """Trains the bias vectors of the base, those of its norms among them, and nothing else.

    y = W x + b with W as it is. `biases: query_up` is the paper's smaller half: those of the query and of the MLP's first layer.

    Source: Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", arXiv
    2106.10199; weights of norms: Qi et al., "Parameter-Efficient Tuning on Layer Normalization", arXiv 2211.08682.
    Cost: one parameter an output of every layer with a bias (about 0.1 % of BERT), one a channel of every norm's bias, and as many
    again with `norms: both`; about the time of LoRA, no cost at inference, and a file of these vectors alone.
    Use when: rows are few, the base is near the task, the smallest file is wanted. Avoid when: the base has no biases (Llama,
    Mistral, Gemma, T5), or must learn what is new: a bias shifts features and makes none.
    Raises: `ConfigurationError` for a base without biases, and for `query_up` where the query is fused with key and value.
    """

    default_learning_rate: ClassVar[float] = 2e-3

    biases: Literal["all", "query_up"] = Field(default="all", description="of which linear layers: all, or query and mlp.up")
    norms: Literal["none", "bias", "both"] = Field(default="bias", description="of norms: nothing, biases, or their weights too")

    def attach(self, model: Model, seed: int) -> PartTuning:
        """Mark the biases as trained; the network stays the same."""
        kinds, own = by_kind(model), own_parameters(model)
        linear, norms = kinds["bias"] - kinds["norm"], kinds["norm"]
        if not linear:
            raise ConfigurationError(
                f"a {model.family} network has no biases to train",
                where="method",
                hint="Train its norms: `method: {name: selective, kinds: [norm]}`, or use `method: lora`.",
            )
        wanted = linear if self.biases == "all" else _query_up(model) & linear
        if self.norms != "none":
            wanted |= norms if self.norms == "both" else norms & kinds["bias"]
        return PartTuning(model, {name: one for name, one in own.items() if name in wanted}, self)


def _query_up(model: Model) -> set[str]:
    """The biases of query and of the MLP's first layer. Raises `ConfigurationError` where the query has none of its own."""
    from tunewright.models.sites import roles

    found = set[str]()
    for path, names in roles(model.network).items():
        if "attention.query" in names and len(names) > 1:
            raise ConfigurationError(
                f"'{path}' computes query, key and value in one, so the query has no bias of its own",
                where="method.biases",
                hint="Use `biases: all`.",
            )
        found |= {f"{path}.bias"} if {"attention.query", "mlp.up"} & set(names) else set()
    return found
