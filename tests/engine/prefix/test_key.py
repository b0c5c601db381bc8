"""The key tells apart whatever the states depend on; a digest stands for a path and nothing else."""

from itertools import pairwise

import pytest
import torch

from tunewright.data.forest import Segment, Tree, single
from tunewright.engine.batch import forest
from tunewright.engine.int8 import Int8Linear
from tunewright.engine.network import hold_in_bfloat16
from tunewright.engine.prefix.cut import Prefix
from tunewright.engine.prefix.key import key_of, name_of, path_digests
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny


def key(model, cut: int = 1, offset: int = 0, computed_in: str = "float32"):
    return key_of(model, Prefix(model, cut), offset, computed_in, torch.zeros(1, 2, model.width))


def lower(model, name: str) -> torch.Tensor:
    return dict(model.network.named_parameters())[name]


def test_equal_bases_have_equal_keys():
    assert key(tiny("llama")) == key(tiny("llama"))
    assert len(name_of(key(tiny("llama")))) == 32


def merged(model):
    tuning = LoRA(rank=2, targets=(r"re:.*layers\.0\..*q_proj",)).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.1)
    tuning.merge()


def norm_of(model) -> object:
    return model.network.get_submodule("model.layers.0.input_layernorm")


def quantised(model):
    path = "model.layers.0.mlp.up_proj"
    model.network.set_submodule(path, Int8Linear(model.network.get_submodule(path)))


CHANGES = {
    "merged below": merged,
    "a LoRA below": lambda model: LoRA(rank=2, targets=(r"re:.*layers\.0\..*q_proj",)).attach(model, 0),
    "a weight below": lambda model: lower(model, "model.layers.0.mlp.up_proj.weight").data[0, 0].add_(1e-3),
    "an embedding": lambda model: lower(model, "model.embed_tokens.weight").data[7, 0].add_(1e-3),
    "held in bfloat16": hold_in_bfloat16,
    "quantised": quantised,
    "an epsilon": lambda model: setattr(norm_of(model), "variance_epsilon", 1e-3),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_whatever_changes_below_changes_the_key(change: str):
    model = tiny("llama")
    model.network.requires_grad_(False)
    before = key(model)
    CHANGES[change](model)
    assert key(model) != before


def test_what_changes_above_does_not():
    model = tiny("llama")
    before = key(model)
    lower(model, "model.layers.1.mlp.up_proj.weight").data.zero_()
    lower(model, "model.norm.weight").data.zero_()
    model.network.train()
    model.blocks[0].gradient_checkpointing = True
    assert key(model) == before


def test_quantised_bytes_belong_to_the_key():
    model = tiny("llama")
    model.network.requires_grad_(False)
    quantised(model)
    before = key(model)
    layer = model.network.get_submodule("model.layers.0.mlp.up_proj")
    layer.scale_O[0] *= 1.01
    assert key(model) != before


@pytest.mark.parametrize("other", [{"cut": 2}, {"offset": 2}, {"computed_in": "bfloat16"}], ids=str)
def test_how_it_is_computed_belongs_to_the_key(other):
    model = tiny("llama")
    assert key(model, **other) != key(model)


def digests(*trees: Tree) -> list[bytes]:
    return path_digests(forest(trees))


def test_a_digest_stands_for_the_path():
    root, child = (5, 6, 7), (8, 9)
    tree = Tree((Segment(root), Segment(child, 0), Segment(child, 1), Segment((), 0), Segment(child, 3)))
    alone, other = single(child), Tree((Segment((5, 6, 4)), Segment(child, 0)))
    found = digests(tree, alone, other)
    assert len(set(found)) == len(found)
    assert digests(alone, other, tree) == [found[5], *found[6:], *found[:5]]
    assert all(len(digest) == 16 for digest in found)


def test_targets_labels_rows_and_tunings_do_not_matter():
    plain = single((5, 6, 7))
    marked = Tree((Segment((5, 6, 7), None, (0.0, 1.0, 1.0), tuning=3, label=1, row=9),))
    assert digests(plain) == digests(marked)


def test_where_a_path_is_cut_matters_only_to_the_digest():
    whole, cut = digests(single((5, 6, 7))), digests(Tree((Segment((5,)), Segment((6, 7), 0))))
    assert whole[0] not in cut
    assert all(one != other for one, other in pairwise(cut))
