"""Naming a part of a base's own weights: by kind, by block, by pattern; what `selective` and `sparse` have in common.

Kinds follow the canonical places of `models.sites`. Within a block, what is below the module called attention is `attention`, a
norm is `norm` wherever it stands, and everything else is `mlp`: families that leave the MLP unnamed, routers and experts included.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from torch.nn import Parameter

    from tunewright.models import Model

KINDS = ("bias", "norm", "embedding", "attention", "mlp", "head")
OUTSIDE = ("embedding", "head")  # what stands beside the blocks, so that a choice of blocks says nothing about it


def own_parameters(model: Model) -> dict[str, Parameter]:
    """The base's own weights by name, a shared one once; what methods have put on the network is none of them."""
    from tunewright.models.attached import Attached

    attached = {
        id(parameter)
        for module in model.network.modules()
        if isinstance(module, Attached)
        for parameter in module.parameters(recurse=False)
    }
    return {name: one for name, one in model.network.named_parameters() if id(one) not in attached}


def known_kinds(kinds: Sequence[str]) -> None:
    """Raise `UnknownNameError` for a kind that there is not, with the nearest one; each is looked at, also among others."""
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError(f"there is no kind of weights '{kind}'", allowed=KINDS, given=kind)


def of_kinds(model: Model, kinds: Iterable[str], where: str = "method.kinds") -> set[str]:
    """The names of the weights of any of `kinds`.

    Raises:
        ConfigurationError: the base has none of a kind, or shares the weight of its head with the embeddings.
    """
    found, every = set[str](), by_kind(model)
    for kind in kinds:
        if kind == "head" and _tied_head(model):
            raise ConfigurationError(
                "the language head shares its weight with the embeddings, so it cannot be chosen alone",
                where=where,
                hint="Choose `embedding`: it is both.",
            )
        if not every[kind]:
            present = [name for name in KINDS if every[name]]
            hint = "A base without biases has norms: `kinds: [norm]`." if kind == "bias" else ""
            problem = f"a {model.family} network has no weights of the kind '{kind}'"
            raise ConfigurationError(problem, where=where, allowed=present, given=kind, hint=hint)
        found |= every[kind]
    return found


def by_kind(model: Model) -> dict[str, set[str]]:
    """Every kind, and the names of its weights; empty where this base has none of it. A bias is of two kinds."""
    from torch import nn

    from tunewright.models.sites import canonical

    network, own = model.network, own_parameters(model)
    places, inside = canonical(network), block_indexes(model)
    norms = _below(model, places.get("norm", []))
    attention = _below(model, places.get("attention", [])) - norms
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    return {
        "bias": {name for name in own if name.endswith("bias")},
        "norm": norms,
        "embedding": {name for name, one in own.items() if id(one) in tables and name not in inside},
        "attention": attention & set(inside),
        "mlp": set(inside) - attention - norms,
        "head": set() if _tied_head(model) else _below(model, places.get("head", [])),
    }


def _below(model: Model, paths: Iterable[str]) -> set[str]:
    """The weights of the modules at `paths`, under the names that the network gives them."""
    ids = {id(parameter) for path in paths for parameter in model.network.get_submodule(path).parameters()}
    return {name for name, parameter in own_parameters(model).items() if id(parameter) in ids}


def _tied_head(model: Model) -> bool:
    output, entrance = model.network.get_output_embeddings(), model.network.get_input_embeddings()
    return output is not None and output.weight is entrance.weight


def block_indexes(model: Model) -> dict[str, int]:
    """For each weight inside a transformer block, the number of the block."""
    owners = {id(parameter): index for index, block in enumerate(model.blocks) for parameter in block.parameters()}
    return {name: owners[id(parameter)] for name, parameter in own_parameters(model).items() if id(parameter) in owners}


def embedding_names(model: Model) -> set[str]:
    """The weights of token and position embeddings and of what normalises them."""
    from torch import nn

    tables = {
        id(p) for module in model.network.modules() if isinstance(module, nn.Embedding) for p in module.parameters(recurse=False)
    }
    return {
        name
        for name, parameter in own_parameters(model).items()
        if id(parameter) in tables or any("embed" in part for part in name.split(".")[:-1])
    }


def written_blocks(value: Any) -> Any:
    """A choice of blocks as text, however a run file has it: `7` and `[0, 1, 7]` too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def read_blocks(text: str) -> tuple[int, ...]:
    """The numbers that `"0-3,7"` means, in order.

    Raises:
        ConfigurationError: a part is neither a number nor a range that goes up.
    """
    found: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            hint = 'Blocks are numbers from 0 and ranges that go up: "0-3,7".'
            raise ConfigurationError(f"'{part.strip()}' is no block and no range of blocks", hint=hint)
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def within_blocks(model: Model, text: str, where: str = "method.blocks") -> set[str]:
    """The names of the weights inside the blocks that `text` means.

    Raises:
        ConfigurationError: the base has no block of one of the numbers.
    """
    wanted, count = read_blocks(text), len(model.blocks)
    beyond = [number for number in wanted if number >= count]
    if beyond:
        raise ConfigurationError(
            f"names block {beyond[0]} and the base has {count}", where=where, hint=f"They are numbered from 0 to {count - 1}."
        )
    return {name for name, block in block_indexes(model).items() if block in wanted}


def matching(names: Sequence[str], patterns: Sequence[str], key: str) -> set[str]:
    """The names that any pattern matches: a glob over the whole name, or a part of it when it has no wildcard.

    Raises:
        ConfigurationError: a pattern matches nothing, also when others match.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if (fnmatch.fnmatchcase(name, pattern) if set("*?[") & set(pattern) else pattern in name)}
        if not hits:
            parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise ConfigurationError(
                f"the pattern '{pattern}' matches no weight", where=f"method.{key}", allowed=parts, given=pattern.strip("*.")
            )
        found |= hits
    return found


def require_some(chosen: Mapping[str, Parameter], hint: str) -> dict[str, Parameter]:
    """`chosen`, or a `ConfigurationError` when it is empty."""
    if not chosen:
        raise ConfigurationError("the selection is empty: no weight of the base would be trained", where="method", hint=hint)
    return dict(chosen)
