"""Bottleneck adapters: small networks of two layers inside the blocks of a frozen base."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._changes import HALVES, Half, HiddenTuning, attach, blocks_at

if TYPE_CHECKING:
    from tunewright.models import Model

Place = Literal["attention", "mlp"]
_ENTRIES: dict[Place, tuple[str, ...]] = {"attention": ("attention.query",), "mlp": ("mlp.gate", "mlp.up")}
_EXITS: dict[Place, str] = {"attention": "attention.output", "mlp": "mlp.down"}


class BottleneckAdapter(Method):
    """Adds a small network of two layers behind (or beside) attention and feed-forward of each chosen block.

    Sequential: y + scale * (U f(D y + d) + u) in place of the output y of a sub-layer, before it joins the residual stream.
    Parallel: y + scale * (U f(D x + d) + u), with x the input of the sub-layer. D is [width, D], U [D, width]; U and u start at
    zero, so training starts at the base. Of a decoder that reads an encoder, the self-attention is meant.

    Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", arXiv 1902.00751 (both places); Pfeiffer et al.,
    "AdapterFusion", arXiv 2005.00247 (`where: [mlp]`); He et al., "Towards a Unified View of Parameter-Efficient Transfer
    Learning", arXiv 2110.04366 (`kind: parallel`).
    Cost: 2 * width * D + width + D parameters a place, and 2 * D with `layer_norm`; computed at every token, also after training.
    Use when: many small tunings of one base are kept, or a task needs something that is not a change of weights. Avoid when:
    answers must be as fast as the base's: it cannot be merged.
    Raises: `ConfigurationError` for a block or a half that the base does not have.
    """

    default_learning_rate: ClassVar[float] = 3e-3

    width: int | None = Field(default=None, ge=1, le=65536, description="numbers a token inside; D / reduction when not given")
    reduction: float | None = Field(
        default=None, ge=1, le=4096, description="the base's width D as a multiple of the adapter's; 16 when nothing is given"
    )
    activation: Literal["relu", "gelu", "swish", "tanh"] = Field(default="relu", description="the non-linearity inside")
    where: tuple[Place, ...] = Field(
        default=("attention", "mlp"), min_length=1, description="behind (or beside) which sub-layers: attention, mlp"
    )
    kind: Literal["sequential", "parallel"] = Field(
        default="sequential", description="computed from a sub-layer's output, or from its input"
    )
    scale: float = Field(default=1.0, gt=0, le=1e3, description="factor of the change (He et al. take 4 for `parallel`)")
    layer_norm: bool = Field(default=False, description="a layer norm of its own in front of the down-projection")
    halves: tuple[Half, ...] = Field(default=HALVES, min_length=1, description="of an encoder-decoder: encoder, decoder or both")
    blocks: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="which blocks, from 0; negative numbers count from the end; all when not given"
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.width is not None and self.reduction is not None:
            raise ValueError("`width` and `reduction` both say how wide the adapter is; give one")
        return self

    def inner(self, width: int) -> int:
        """The width of an adapter for hidden states of `width` numbers."""
        return self.width if self.width is not None else max(1, round(width / (self.reduction or 16)))

    def attach(self, model: Model, seed: int) -> HiddenTuning:
        """Put an adapter on every place meant, beside those of tunings that stand there already, and freeze the base."""
        from tunewright.engine.changes import Bottleneck, Spot

        spots = {}
        for place, (path, source) in _places(model, blocks_at(model, self.blocks, self.halves), self.where).items():
            change = Bottleneck(
                (model.width, self.inner(model.width)),
                self.activation,
                self.scale,
                derive(seed, "bottleneck", place),
                norm=self.layer_norm,
            )
            spots[place] = Spot(change, path, source=source if self.kind == "parallel" else None)
        return attach(model, self, spots, "a bottleneck adapter has a non-linearity inside")


def _places(model: Model, blocks: list[str], where: tuple[Place, ...]) -> dict[str, tuple[str, str]]:
    """For each place, named after the block: the layer whose output is changed, and the one that the same input enters."""
    from tunewright.models.sites import canonical, reads_another, roles

    known, modules = roles(model.network), canonical(model.network).get("mlp", [])
    found = {}
    for block in blocks:
        inside = {path: names for path, names in known.items() if path.startswith(f"{block}.") and not reads_another(path)}
        for place in where:
            exits = [path for path, names in inside.items() if names == (_EXITS[place],)]
            entries = [path for path, names in inside.items() if set(names) & set(_ENTRIES[place])]
            if place == "mlp" and len(exits) != 1:  # a mixture of experts, whose layers are no modules or too many
                exits = entries = [path for path in modules if path.startswith(f"{block}.")]
            if len(exits) != 1 or not entries:
                raise ConfigurationError(f"'{block}' has no {place} of the ordinary kind", where="method.where")
            found[f"{block}.{place}_adapter"] = (exits[0], entries[0])
    return found
