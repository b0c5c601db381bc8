"""What stands on a base when low-rank changes beside its layers are attached: on, off, in its weights and out of them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigurationError
from tunewright.methods import Tuning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torch.nn import Module, Parameter

    from tunewright.engine.linear import Change
    from tunewright.models import Model


class LowRankTuning(Tuning):
    """Low-rank changes beside layers of a base; a subclass saves and loads them.

    Args:
        slot: its number among the tunings on the model (`tunewright.models.lanes`).
        layers: its adapters, by the path of the layer that each stands beside.
    """

    def __init__(self, model: Model, slot: int, layers: Mapping[str, Change]) -> None:
        self.model, self.slot, self.layers = model, slot, dict(layers)
        self._unfolded: dict[str, Parameter] = {}  # the base's own weights, while the change is folded into copies of them

    def parameters(self) -> dict[str, Parameter]:
        return named(self.layers)

    def kept(self) -> dict[str, Tensor]:
        """The products that are subtracted, where training began at the base's own directions."""
        return {f"{path}.{name}": value for path, layer in self.layers.items() for name, value in layer.named_buffers()}

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within the context this tuning changes nothing; others on the same base do as before."""
        before = {path: layer.enabled for path, layer in self.layers.items()}
        folded = self._swapped()
        for layer in self.layers.values():
            layer.enabled = False
        try:
            yield
        finally:
            self._put(folded)
            for path, layer in self.layers.items():
                layer.enabled = before[path]

    def detach(self) -> None:
        """Leave the base, whose layers are plain ones again when the last tuning has left; a second call does nothing."""
        from tunewright.engine.linear import take_off

        self.unfold()
        if self.layers:
            take_off(self.model.network, self.slot, tuple(self.layers))
            self.model.lanes.close(self.slot)
        self.layers = {}

    def merge(self) -> None:
        """Put the change into the base's own weights for good, and leave.

        Raises:
            ConfigurationError: the base is not held in numbers that a change can be added to.
        """
        import torch

        self.unfold()
        hosts = self._hosts("merge")
        network = self.model.network
        with torch.no_grad():
            for path, host in hosts.items():
                weight = host.get_parameter("weight")
                if sum(module._parameters.get("weight") is weight for module in network.modules()) > 1:
                    # A head that shares the embeddings' weight, or they the head's, is given its own: the change is its alone.
                    weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
                    host.register_parameter("weight", weight)
                    # In encoder-decoders the setting ties the two embeddings too; there, weights that differ are kept apart.
                    network.config.tie_word_embeddings = network.config.is_encoder_decoder
                weight.add_(self.layers[path].change())
        self.detach()

    def fold(self) -> None:
        """Put the change into the base's weights until `unfold`: a pass then costs what one of the base does.

        The weights that it touches are kept beside the changed ones, so that `unfold` gives the base back bit by bit: while folded,
        the layers concerned take twice the memory. What is folded is not trained, and no other tuning may join. A second call does
        nothing.

        Raises:
            ConfigurationError: another tuning stands on the base, or the base is not held in numbers that a change can be added to.
        """
        import torch

        if self._unfolded:
            return
        others = [slot for slot in self.model.lanes.members if slot != self.slot]
        if others:
            raise ConfigurationError(
                "other tunings stand on this base, and what is folded into its weights would change their tokens too", where="fold"
            )
        with torch.no_grad():
            changed = {
                path: torch.nn.Parameter((weight + self.layers[path].change()).to(weight.dtype), requires_grad=False)
                for path, host in self._hosts("fold").items()
                for weight in (host.get_parameter("weight"),)
            }
        self._unfolded = self._put(changed)
        for layer in self.layers.values():
            layer.enabled, layer.folded = False, True

    def unfold(self) -> None:
        """Take the change out of the base's weights again, which are then the tensors that they were, and apply it beside them."""
        if self._unfolded:
            self._put(self._unfolded)
            self._unfolded = {}
            for layer in self.layers.values():
                layer.enabled, layer.folded = True, False

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Within the context the change stands beside the base's weights; what was folded is folded again behind it."""
        folded = bool(self._unfolded)
        self.unfold()
        try:
            yield
        finally:
            if folded:
                self.fold()

    def _swapped(self) -> dict[str, Parameter]:
        """The base's own weights stand; returns those that did if they were others."""
        return self._put(self._unfolded)

    def _put(self, weights: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """Put weights into their layers; returns those that stood there."""
        before = {}
        for path, weight in weights.items():
            host = self.model.network.get_submodule(path)
            before[path] = host.get_parameter("weight")
            host.register_parameter("weight", weight)
        return before

    def _hosts(self, where: str) -> dict[str, Module]:
        """The layers by path, if a change can be added to the weights of all.

        Raises:
            ConfigurationError: it cannot.
        """
        from tunewright.engine.linear import holds_numbers

        hosts = {path: self.model.network.get_submodule(path) for path in self.layers}
        for path, host in hosts.items():
            if not holds_numbers(host):
                raise ConfigurationError(
                    f"'{path}' does not hold its weight as numbers that a change can be added to",
                    where=where,
                    hint="Load the base without `base_precision`, attach the adapter there, and merge.",
                )
            if not self.layers[path].mergeable:
                raise ConfigurationError(
                    f"'{path}' is a convolution with groups, and a change beside it is of no shape that its weight has",
                    where=where,
                    hint="Keep it attached, or leave such layers out of `targets`.",
                )
        return hosts

    def interpolate(self, factor: float) -> None:
        """Make the change `factor` times as large: at 0 the network is the base, at 1 nothing happens.

        Raises:
            ConfigurationError: with magnitudes of its own (DoRA) the change is not proportional to anything that is kept.
        """
        if any(layer.gained for layer in self.layers.values()):
            raise ConfigurationError(
                "a change with magnitudes of its own (`dora`) cannot be made smaller or larger",
                where="interpolate",
                hint="Merge it, and interpolate between the base's weights and the merged ones.",
            )
        with self.apart():
            for layer in self.layers.values():
                layer.resize(factor)


def named(layers: Mapping[str, Change]) -> dict[str, Parameter]:
    """The trained parameters of adapters, by the path of the layer and PEFT's name for the matrix."""
    found: dict[str, Parameter] = {}
    for path, layer in layers.items():
        found |= {f"{path}.{name}": getattr(layer, attribute) for name, attribute in layer.names.items()}
        if layer.magnitude_O is not None:
            found[f"{path}.lora_magnitude_vector"] = layer.magnitude_O
    return found
