"""Where virtual tokens enter a network: around the forward of its input embedding, which knows no negative ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tunewright.engine.around import Around, Forward
from tunewright.models import Model
from tunewright.models.attached import Attached
from tunewright.models.lanes import Lane, Lanes, Standing

STRIDE = 4096  # ids of each tuning; more virtual tokens than that no method makes
NOBODY = -1  # the tuning of tokens that are none's: what is computed for them is the base's
_NAME = "virtual"


def ids_of(slot: int, count: int) -> tuple[int, ...]:
    """The ids of a tuning's virtual tokens, all negative and no other tuning's.

    Raises:
        ValueError: more than a tuning may have.
    """
    if not 0 < count <= STRIDE:
        raise ValueError(f"a tuning has 1 to {STRIDE} virtual tokens, not {count}")
    return tuple(-(slot * STRIDE + number + 1) for number in range(count))


class Virtual(Attached):
    """The virtual tokens of one tuning; parameters stay float32 wherever the network goes, as masters do.

    Args:
        count: P, how many.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def vectors(self) -> Tensor | None:
        """What the embedding gives at their ids, [P, D]; None where nothing reads it."""
        return None

    def states(self) -> Tensor | None:
        """Their keys and values [P, 2 * L, K, W], block by block; None where the network computes them."""
        return None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Virtual:
        for parameter in self.parameters():
            parameter.data = parameter.data.to(fn(parameter.data).device)
        return self


class Entrance(Attached):
    """Stands on an input embedding while any tuning with virtual tokens does.

    Args:
        embedding: the module that is given token ids.
        lanes: hear where virtual tokens stand in each pass.
    """

    def __init__(self, embedding: nn.Module, lanes: Lanes) -> None:
        super().__init__()
        self.lanes = lanes
        self.tunings = nn.ModuleDict()
        embedding.add_module(_NAME, self)
        self._around = Around(embedding, lambda plain: lambda ids: self(plain, ids))

    def leave(self) -> None:
        """Take it off: the embedding is a plain one again."""
        delattr(self._around.module, _NAME)
        self._around.remove()

    def forward(self, plain: Forward, ids_BT: Tensor) -> Tensor:
        """The embeddings [B, T, D], with the tunings' vectors at negative ids."""
        where = (ids_BT < 0).nonzero(as_tuple=True)
        if not len(where[0]):
            self.lanes.standing = ()
            return plain(ids_BT)
        numbers_N = -1 - ids_BT[where]
        embedded_BTD: Tensor = plain(ids_BT.clamp_min(0))
        standing = []
        for slot, virtual in self.tunings.items():
            assert isinstance(virtual, Virtual)
            here = (numbers_N // STRIDE == int(slot)).nonzero()[:, 0]
            rows_N, columns_N = where[0][here], where[1][here]
            own_N = numbers_N[here] % STRIDE
            standing.append(Standing(int(slot), rows_N, columns_N, own_N, virtual.states() if len(here) else None))
            vectors_PD = virtual.vectors() if len(here) else None
            if vectors_PD is not None:
                embedded_BTD = embedded_BTD.index_put((rows_N, columns_N), vectors_PD[own_N].to(embedded_BTD.dtype))
        self.lanes.standing = tuple(standing)
        return embedded_BTD


def entry(model: Model) -> nn.Embedding:
    """The module that is given the token ids of what a tuning reads: of an encoder-decoder, the encoder's."""
    network = model.network.get_encoder() if model.kind == "encoder_decoder" else model.network
    return cast(nn.Embedding, network.get_input_embeddings())


def mount(model: Model, slot: int, virtual: Virtual) -> None:
    """Put the virtual tokens of a tuning on a model; every row of the tuning begins with them from now on.

    Raises:
        ValueError: the tuning has virtual tokens already.
    """
    if slot in model.lanes.begins:
        raise ValueError(f"tuning {slot} has virtual tokens already")
    embedding = entry(model)
    entrance = embedding._modules.get(_NAME) or Entrance(embedding, model.lanes)
    assert isinstance(entrance, Entrance)
    entrance.tunings[str(slot)] = virtual.to(embedding.weight.device)
    model.lanes.begins[slot] = ids_of(slot, virtual.count)


def unmount(model: Model, slot: int) -> None:
    """Take the virtual tokens of a tuning off; without others the embedding is a plain one again."""
    entrance = entry(model)._modules[_NAME]
    assert isinstance(entrance, Entrance)
    del entrance.tunings[str(slot)]
    if not len(entrance.tunings):
        entrance.leave()
    model.lanes.begins.pop(slot, None)
    model.lanes.standing = ()


@torch.no_grad()
def embedded(model: Model, tokens: tuple[int, ...]) -> Tensor:
    """What the input embedding gives for tokens, [P, D] float32, scaled where the family scales it."""
    embedding = entry(model)
    ids_1P = torch.tensor([tokens], device=embedding.weight.device)
    with model.lanes.during((Lane(NOBODY, 0, len(tokens)),)):
        found: Tensor = embedding(ids_1P)
    return found[0].float().clone()
