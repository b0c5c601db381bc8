"""Places in a network by names that hold for every family: `attention.query`, `mlp.down`, `embedding`, `linear`, ...

A rule by the words in a module's path, not a table of families: within a block, a linear layer below something called attention is
one of query, key, value and output, any other linear layer belongs to the MLP. A fused layer (`qkv_proj`, `gate_up_proj`)
stands under every name that it fuses. What methods have put on a network (`tunewright.models.attached`) is no place of it, and a
layer that carries something is still the linear layer that it was.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LINEAR_SITES = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.gate", "mlp.up", "mlp.down")
SITES = (*LINEAR_SITES, "attention", "mlp", "embedding", "head", "norm", "linear")

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"^(mlp|ffn|feed_forward|DenseReluDense|block_sparse_moe)$")
_CROSS = re.compile(r"EncDecAttention|encoder_attn|cross_?attention|cross_?attn", re.IGNORECASE)
_NORM = re.compile(r"norm|^ln_|_ln$|dropout", re.IGNORECASE)
# The last word of a linear layer's path -> what it is; the first match counts. Case matters: ModernBERT's `Wi` is gate and up in
# one, T5's `wi` is up alone. A router is called `gate` too and is none of these.
_IN_ATTENTION: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"c_attn|[Ww]?qkv(_proj|_layer)?|query_key_value|in_proj", ("attention.query", "attention.key", "attention.value")),
    (r"kv(_proj)?|kv_a_proj_with_mqa|kv_b_proj|key_value", ("attention.key", "attention.value")),
    (r"q(_[ab])?_?proj|query(_proj|_layer)?|q_lin|q|wq", ("attention.query",)),
    (r"k_?proj|key(_proj|_layer)?|k_lin|k|wk", ("attention.key",)),
    (r"v_?proj|value(_proj|_layer)?|v_lin|v|wv", ("attention.value",)),
    (r"o_?proj|out_proj|out_lin|c_proj|dense|[Ww]o|o|out", ("attention.output",)),
)
_IN_MLP: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"gate_up_proj|Wi", ("mlp.gate", "mlp.up")),
    (r"gate_proj|w1|wi_0", ("mlp.gate",)),
    (r"intermediate\.dense|up_proj|fc1|c_fc|dense_h_to_4h|wi|wi_1|w3|lin1|fc_in", ("mlp.up",)),
    (r"output\.dense|down_proj|fc2|c_proj|dense_4h_to_h|[Ww]o|w2|lin2|fc_out", ("mlp.down",)),
)


def _own_modules(network: PreTrainedModel) -> dict[str, nn.Module]:
    """Every module by path, without what methods have put on the network."""
    from tunewright.models.attached import Attached

    attached = tuple(path + "." for path, module in network.named_modules() if isinstance(module, Attached))
    return {path: module for path, module in network.named_modules() if not f"{path}.".startswith(attached)}


def blocks_of(network: PreTrainedModel) -> dict[str, nn.Module]:
    """Path and module of every transformer block, in the order they run; an encoder-decoder's encoder stands first."""
    from torch import nn

    lists = {path: module for path, module in _own_modules(network).items() if isinstance(module, nn.ModuleList)}
    outer = {path: module for path, module in lists.items() if not any(path.startswith(other + ".") for other in lists)}
    if not outer:
        raise ConfigurationError(f"a {network.config.model_type} network has no list of blocks")
    # By parameters and not by length: a mixture's list of experts is longer than its list of blocks.
    sizes = {path: sum(parameter.numel() for parameter in module.parameters()) for path, module in outer.items()}
    if network.config.is_encoder_decoder:
        halves = [
            max((path for path in outer if half in path.split(".")), key=sizes.__getitem__) for half in ("encoder", "decoder")
        ]
    else:
        halves = [max(sizes, key=sizes.__getitem__)]
    return {f"{path}.{index}": block for path in halves for index, block in enumerate(outer[path])}


def linear_layers(network: PreTrainedModel) -> dict[str, nn.Module]:
    """Every linear layer inside the blocks (`nn.Linear`, and GPT-2's transposed `Conv1D`), by path; the head is not one of them."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    inside = tuple(f"{place}." for place in blocks_of(network))
    return {
        path: module
        for path, module in _own_modules(network).items()
        if path.startswith(inside) and isinstance(module, (nn.Linear, Conv1D))
    }


def roles(network: PreTrainedModel) -> dict[str, tuple[str, ...]]:
    """What each linear layer of the blocks is, by path: `{"model.layers.0.self_attn.qkv_proj": ("attention.query", ...)}`.

    Several names mean a fused layer; how its output is cut is the family's own affair (one after the other in GPT-2 and Phi-3,
    head by head in GPT-NeoX). A layer that no rule knows (a router) has none.
    """
    lengths = {place: len(place) + 1 for place in blocks_of(network)}
    found = {}
    for path in linear_layers(network):
        place = next(place for place in lengths if path.startswith(place + "."))
        found[path] = _role(path[lengths[place] :])
    return found


def reads_another(path: str) -> bool:
    """Whether a path leads into cross-attention, which reads the encoder's states beside the decoder's."""
    return bool(_CROSS.search(path))


def _role(inside: str) -> tuple[str, ...]:
    words = inside.split(".")
    rules = _IN_ATTENTION if any(_ATTENTION.search(word) for word in words[:-1]) else _IN_MLP
    tails = (words[-1], ".".join(words[-2:]))
    return next((names for pattern, names in rules if any(re.fullmatch(pattern, tail) for tail in tails)), ())


def canonical(network: PreTrainedModel) -> dict[str, list[str]]:
    """The paths of every canonical place that this network has; names without a place are left out."""
    found: dict[str, list[str]] = {name: [] for name in SITES}
    for path, names in roles(network).items():
        found["linear"].append(path)
        for name in names:
            found[name].append(path)
    modules = _own_modules(network)
    for place in blocks_of(network):
        inner = [(path, path.rsplit(".", 1)[-1]) for path in modules if path.startswith(f"{place}.")]
        _outermost(found["attention"], [path for path, word in inner if _ATTENTION.search(word) and not _NORM.search(word)])
        _outermost(found["mlp"], [path for path, word in inner if _MLP.match(word)])
    # Families that leave the MLP unnamed (BERT, OPT, BART): its last layer gives the same output.
    found["mlp"] = found["mlp"] or found["mlp.down"]
    paths = {id(module): path for path, module in modules.items()}
    for name, module in (("embedding", network.get_input_embeddings()), ("head", network.get_output_embeddings())):
        found[name] = [paths[id(module)]] if module is not None else []
    found["norm"] = [
        path
        for path, module in modules.items()
        if "norm" in type(module).__name__.lower() and next(module.parameters(), None) is not None
    ]
    return {name: places for name, places in found.items() if places}


def _outermost(kept: list[str], paths: list[str]) -> None:
    kept.extend(path for path in paths if not any(path.startswith(other + ".") for other in paths))


def find(network: PreTrainedModel, names: Iterable[str]) -> dict[str, nn.Module]:
    """Path and module of every place that any of `names` means, in the network's order.

    A name is a canonical one (`attention.query`), the end of a module's path (`q_proj`, `self_attn.q_proj`), a glob over whole
    paths (`model.layers.[01].*.q_proj`), or a regular expression over whole paths (`re:.*layers\\.(0|1)\\..*`; the prefix may be
    left out where the text can be nothing else).

    `attention` is the module called so and gives what that module gives (for BERT that is after its residual and norm); `mlp` is
    the same, or the MLP's last layer where the family gives it no module; `norm` is every norm with weights; `linear` is every
    linear layer of the blocks; `head` is the language-model head.

    Raises:
        ConfigurationError: a name means no place in this network; each one is checked, also among others that do.
    """
    known, modules = canonical(network), _own_modules(network)
    wanted: set[str] = set()
    for name in names:
        places = known.get(name) or _matching(name, modules)
        if not places:
            raise _nothing(network, name, known, modules)
        wanted.update(places)
    if not wanted:
        raise ConfigurationError("no place in the network was named", where="sites", allowed=known)
    return {path: module for path, module in modules.items() if path in wanted}


def _matching(name: str, modules: Iterable[str]) -> list[str]:
    if name in SITES:
        return []
    if name.startswith("re:") or re.search(r"[\\()|^$+]|\.\*", name):
        try:
            pattern = re.compile(name.removeprefix("re:"))
        except re.error as error:
            raise ConfigurationError(f"'{name}' is not a regular expression ({error})", where="sites") from None
        return [path for path in modules if path and pattern.fullmatch(path)]
    if re.search(r"[*?\[]", name):
        return [path for path in modules if path and (fnmatch.fnmatchcase(path, name) or fnmatch.fnmatchcase(path, "*." + name))]
    return [path for path in modules if path == name or path.endswith("." + name)]


def _nothing(network: PreTrainedModel, name: str, known: Iterable[str], modules: Iterable[str]) -> ConfigurationError:
    family = network.config.model_type
    words = sorted({path.rsplit(".", 1)[-1] for path in linear_layers(network)})
    # Only linear layers are listed, but a misspelt norm or embedding should find its name too.
    every = {path.rsplit(".", 1)[-1] for path in modules if path and not path.rsplit(".", 1)[-1].isdigit()}
    guess = nearest(name, [*known, *every])
    if name == "head":
        reason = " (it was loaded without a language-model head)"
    elif name.startswith("mlp.") and name in SITES and "experts" in every:
        reason = " (its experts are fused tensors and no layers)"
    else:
        reason = ""
    return ConfigurationError(
        f"nothing in a {family} network is called '{name}'{reason}",
        where="sites",
        allowed=[*known, *words] if guess is None or guess in words or guess in known else [*known, *words, guess],
        given=name,
    )
