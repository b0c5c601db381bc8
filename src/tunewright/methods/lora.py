"""LoRA: a low-rank change beside frozen layers; with DoRA's magnitudes, and started from the base's own weights, if asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive
from tunewright.methods import Method
from tunewright.methods._lora_tuning import LowRankTuning
from tunewright.models.sites import find

if TYPE_CHECKING:
    from torch.nn import Module

    from tunewright.engine.linear import Change
    from tunewright.models import Model

INITS = ("kaiming", "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_4")
_INIT = re.compile(r"kaiming|gaussian|orthogonal|olora|pissa|pissa_niter_[1-9][0-9]?")


class LoRA(Method):
    """Adds a trainable low-rank product to chosen layers of a frozen base.

    y = W x + b + (alpha / rank) B A x, with A [rank, inputs] and B [outputs, rank]; B starts at zero, so training starts at the
    base. With `rank_stabilized`, alpha / sqrt(rank). On an embedding the product is looked up, on a convolution A and B are
    convolutions. With `dora`, y = m (W x + (alpha / rank) B A x) / |W + (alpha / rank) B A| + b, a norm and a trained m an output.
    An `init` other than `kaiming` is for linear layers (others start as ever); `olora` and `pissa` start at the base's own
    directions and subtract them again, so that training starts at the base too. A higher rate for B (LoRA+) is
    `training.optimizer.learning_rate_ratio`.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; rank stabilisation: arXiv 2312.03732;
    DoRA: arXiv 2402.09353; PiSSA: arXiv 2404.02948; OLoRA: arXiv 2406.01775; LoRA+: arXiv 2402.12354.
    Cost: rank * (inputs + outputs) parameters a layer (for a convolution, inputs times the places of its kernel; with `dora`,
    outputs more); about two thirds of the time and, without gradients and moments of the base, about a quarter of the memory of
    full tuning. `dora` reads every weight twice more a pass (1.1 times LoRA's time at 512 tokens); `olora` and `pissa` multiply
    with twice the rank, and `pissa` decomposes each weight when it is attached (`pissa_niter_4` in a fraction of the time).
    Use when: a few hundred to tens of thousands of examples; many tunings of one base. Avoid when: the base must learn much that
    is new (continued pre-training on a new language): full tuning has the room.
    Raises: `ConfigurationError` for a target or a pattern that matches nothing, also when others match.
    """

    default_learning_rate: ClassVar[float] = 1e-3
    rate_under_new_head: ClassVar[float] = 0.3
    peft_type: ClassVar[str | None] = "LORA"

    rank: int | None = Field(
        default=None, ge=1, le=16384, description="inner width of the change; by the number of rows when not given"
    )
    alpha: float | None = Field(
        default=None, gt=0, le=1e5, description="scale times rank; when not given the scale is 2 up to rank 16 and falls above"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="probability of dropping an input of A")
    targets: tuple[str, ...] = Field(default=("linear",), min_length=1, description="sites, module names or patterns")
    rank_stabilized: bool = Field(default=False, description="scale by alpha / sqrt(rank) instead of alpha / rank")
    dora: bool = Field(default=False, description="train the magnitude of every output apart from its direction")
    init: str = Field(
        default="kaiming", description="kaiming, gaussian, orthogonal, olora, pissa or pissa_niter_4 (or another number)"
    )
    rank_pattern: dict[str, int] = Field(default_factory=dict, description="other ranks, by sites, module names or patterns")
    alpha_pattern: dict[str, float] = Field(default_factory=dict, description="other alphas, likewise; the first that fits counts")

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("init")
    @classmethod
    def _known(cls, value: str) -> str:
        if not _INIT.fullmatch(value):
            raise ConfigurationError(f"there is no start called '{value}'", allowed=INITS, given=value)
        return value

    @field_validator("rank_pattern", "alpha_pattern")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        wrong = next((name for name, number in value.items() if not 0 < number <= 1e5), None)
        if wrong is not None:
            raise ConfigurationError(f"'{wrong}' is given {value[wrong]:g}, and it must be above 0", allowed=["1 to 100000"])
        return value

    @model_validator(mode="after")
    def _even(self) -> LoRA:
        odd = [rank for rank in (self.rank, *self.rank_pattern.values()) if rank is not None and rank % 2]
        if odd and self.init == "orthogonal":
            raise ConfigurationError(
                f"the rank {odd[0]} is odd, and `orthogonal` shares an even one between A and B", hint="Give an even rank."
            )
        return self

    def settled(self, rows: int) -> tuple[LoRA, dict[str, str]]:
        if self.rank is not None:
            return self, {}
        rank = 8 if rows < 200 else 16 if rows < 10_000 else 32
        return self.model_copy(update={"rank": rank}), {"method.rank": f"{rank}: {rows} training rows"}

    @property
    def width(self) -> int:
        """The rank that is used where no pattern gives another: 16 where nothing decided otherwise."""
        return 16 if self.rank is None else self.rank

    @property
    def scale(self) -> float:
        """What B A x is multiplied by where no pattern says otherwise."""
        return self.scale_of(self.width, self.alpha)

    def scale_of(self, rank: int, alpha: float | None) -> float:
        """What B A x is multiplied by at a rank. Without an alpha it is 2 up to rank 16 and less above: one rate serves all."""
        inner = rank**0.5 if self.rank_stabilized else rank
        if alpha is None:
            return min(2.0, (8.0 if self.rank_stabilized else 32.0) / inner)
        return alpha / inner

    def attach(self, model: Model, seed: int) -> LoRATuning:
        """Put an adapter on every target, beside those of tunings that stand there already, and freeze the base."""
        from tunewright.engine.linear import load_on
        from tunewright.models.attached import freeze_base

        hosts = _served(find(model.network, self.targets), model)
        ranks = _by_pattern(self.rank_pattern, "rank_pattern", hosts, model)
        alphas = _by_pattern(self.alpha_pattern, "alpha_pattern", hosts, model)
        layers: dict[str, Change] = {}
        for path, host in hosts.items():
            rank = int(ranks.get(path, self.width))
            scale = self.scale_of(rank, alphas.get(path, self.alpha))
            try:
                layers[path] = self._adapter(host, rank, scale, derive(seed, "lora", path))
            except ValueError as error:
                raise ConfigurationError(f"'{path}' cannot have this LoRA: {error}", where="method") from None
        freeze_base(model.network)
        slot = model.lanes.open()
        load_on(model.network, model.lanes, slot, layers)
        return LoRATuning(model, self, slot, layers)

    def _adapter(self, host: Module, rank: int, scale: float, seed: int) -> Change:
        from torch import nn

        from tunewright.engine.linear import ConvolutionAdapter, EmbeddingAdapter, LoRAAdapter, begin

        if isinstance(host, nn.Embedding):
            adapter = EmbeddingAdapter(host, rank, scale, seed)
        elif isinstance(host, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            adapter = ConvolutionAdapter(host, rank, scale, self.dropout, seed)
        else:
            adapter = LoRAAdapter(host, rank, scale, self.dropout, seed)
            if self.init != "kaiming":
                begin(adapter, self.init, seed)
        if self.dora:
            adapter.weigh()
        return adapter

    @classmethod
    def from_folder(cls, folder: Path) -> LoRA:
        """The LoRA that a PEFT adapter folder describes, at exactly the places that its tensors name.

        Raises:
            BaseModelError: the adapter is of another kind, damaged, or uses an option that is not computed here; it is named.
        """
        from tunewright.methods._lora_format import described

        return build(cls, described(folder), str(folder))


class LoRATuning(LowRankTuning):
    """The adapters of one LoRA.

    Args:
        slot: its number among the tunings on the model (`tunewright.models.lanes`).
        layers: its adapters, by the path of the layer that each stands beside.
    """

    def __init__(self, model: Model, method: LoRA, slot: int, layers: Mapping[str, Change]) -> None:
        super().__init__(model, slot, layers)
        self.method = method

    def save(self, folder: Path) -> None:
        """PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""
        from tunewright.methods._lora_format import save_adapters

        stated = {"lora_dropout": self.method.dropout, "use_rslora": self.method.rank_stabilized, "use_dora": self.method.dora}
        save_adapters(folder, self.model, self.layers, stated)

    def load(self, folder: Path) -> None:
        """Read PEFT's format back into the layers that stand."""
        from tunewright.methods._lora_format import load_adapters

        with self.apart():
            load_adapters(folder, self.model, self.layers)


def _served(hosts: dict[str, Module], model: Model) -> dict[str, Module]:
    """`hosts` where all can carry a LoRA; a named block or norm is refused by name, and so is an embedding that nothing calls."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for path, host in hosts.items():
        if not isinstance(host, nn.Linear | Conv1D | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise ConfigurationError(
                f"'{path}' is a {type(host).__name__}, and a LoRA stands on linear layers, embeddings and convolutions only",
                where="method.targets",
                hint="Name such layers: `linear` is all linear ones, `attention.query` or `mlp.up` some.",
            )
        if model.kind == "encoder_decoder" and host is model.network.get_input_embeddings():
            raise ConfigurationError(
                f"'{path}' only holds the weight that the encoder's and the decoder's embeddings share; nothing is looked up there",
                where="method.targets",
                hint="Name one of those: `encoder.embed_tokens` or `decoder.embed_tokens`.",
            )
    return hosts


def _by_pattern(given: Mapping[str, float], name: str, hosts: Mapping[str, Module], model: Model) -> dict[str, float]:
    """The value of the first pattern that means each place.

    Raises:
        ConfigurationError: a pattern means none of the targets.
    """
    found: dict[str, float] = {}
    for pattern, value in given.items():
        places = [pattern] if pattern in hosts else [path for path in find(model.network, (pattern,)) if path in hosts]
        if not places:
            raise ConfigurationError(
                f"'{pattern}' is none of the targets", where=f"method.{name}", allowed=sorted(hosts)[:8], given=pattern
            )
        for path in places:
            found.setdefault(path, value)
    return found
