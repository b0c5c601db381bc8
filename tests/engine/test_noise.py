"""Noise on embeddings: transformers' own for one row, each row by its own length, and nowhere else."""

import math

import pytest
import torch
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from tunewright.data.forest import Segment, Tree, single
from tunewright.engine.noise import EmbeddingNoise, lengths_of
from tunewright.engine.virtual.entrance import entry
from tunewright.methods.full import Full
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.models import Model
from tunewright.testing.tiny import WIDTH, tiny
from tunewright.testing.toy import toy_engine, toy_trees


def embedded(model: Model, batch, noise: EmbeddingNoise | None = None, seed: int = 3) -> torch.Tensor:
    """What the input embedding gives for a batch, [B, T, D]."""
    torch.manual_seed(seed)
    ids = batch.tokens_BT if batch.source_BT is None else batch.source_BT
    if noise is None:
        return entry(model)(ids).detach()
    with noise.during(batch):
        return entry(model)(ids).detach()


@pytest.mark.parametrize(("family", "layout"), [("llama", "forest"), ("llama", "padded"), ("bert", "forest"), ("t5", None)])
def test_one_row_has_the_noise_of_transformers(family: str, layout: str | None):
    model = tiny(family)
    engine = toy_engine(model, Full().attach(model, 0), layout)
    batch = engine.collate(toy_trees(model, 1))
    clean = embedded(model, batch)
    handle = activate_neftune(model.network if family != "t5" else model.network.get_encoder(), 5.0)
    model.network.train()
    theirs = embedded(model, batch)
    deactivate_neftune(model.network if family != "t5" else model.network.get_encoder(), handle)
    noise = EmbeddingNoise(model, 5.0)
    torch.testing.assert_close(embedded(model, batch, noise), theirs, atol=1e-6, rtol=1e-5)
    assert not torch.equal(theirs, clean)
    noise.remove()
    assert torch.equal(embedded(model, batch, noise), clean)


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_every_row_by_its_own_length(layout: str):
    """Rows of 4 and 64 tokens in one pass: the noise is uniform within alpha / sqrt(L D), with deviation bound / sqrt(3)."""
    model = tiny("llama")
    engine = toy_engine(model, Full().attach(model, 0), layout)
    sizes = [4] * 16 + [64]
    batch = engine.collate([single(tuple(range(5, 5 + size))) for size in sizes])
    moved = (embedded(model, batch, EmbeddingNoise(model, 5.0)) - entry(model)(batch.tokens_BT)).detach().flatten(0, 1)
    for size in (4, 64):
        bound = 5.0 / math.sqrt(size * WIDTH)
        own = torch.cat([moved[start:stop] for start, stop in batch.spans_S2.tolist() if stop - start == size])
        assert 0.97 * bound < float(own.abs().max()) <= bound * (1 + 1e-5)
        assert float(own.std()) == pytest.approx(bound / math.sqrt(3), rel=0.06)
        assert abs(float(own.mean())) < 0.05 * bound


def test_a_shared_prompt_belongs_to_its_longest_sequence():
    """A prompt of 3 with answers of 2 and 5: 8 for the prompt and the long answer, 5 for the short one, as if laid out apart."""
    model = tiny("llama")
    tree = Tree((Segment((5, 6, 7)), Segment((8, 9), 0, (1.0, 1.0)), Segment(tuple(range(10, 15)), 0, (1.0,) * 5)))
    engine = toy_engine(model, Full().attach(model, 0))
    lengths = lengths_of(engine.collate([tree, single((20, 21))]))
    assert lengths[0, :12].tolist() == [8.0] * 3 + [5.0] * 2 + [8.0] * 5 + [2.0] * 2
    apart = toy_engine(model, Full().attach(model, 0), "padded")
    assert lengths_of(apart.collate([tree, single((20, 21))]))[:, 0].tolist() == [5.0, 8.0, 2.0]


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_virtual_tokens_have_none_and_do_not_count(layout: str):
    model = tiny("llama")
    engine = toy_engine(model, PromptTuning(virtual_tokens=4).attach(model, 0), layout)
    batch = engine.collate(toy_trees(model, 2))
    noise = EmbeddingNoise(model, 50.0)
    moved = (embedded(model, batch, noise) - entry(model)(batch.tokens_BT)).detach().abs().sum(-1)
    virtual = batch.tokens_BT < 0
    assert int(virtual.sum()) == (4 if layout == "forest" else 8)
    assert float(moved[virtual].max()) == 0
    spans = [stop - start for start, stop in batch.spans_S2.tolist()]
    assert sorted(set(lengths_of(batch)[~virtual].tolist())) == sorted({float(size) for size in spans})


def test_only_in_passes_that_are_trained_on():
    model = tiny("t5")
    engine = toy_engine(model, Full().attach(model, 0))
    batch, other = (engine.collate(toy_trees(model, 2, seed)) for seed in (0, 1))
    noise = EmbeddingNoise(model, 5.0)
    assert torch.equal(embedded(model, batch, noise, 1), embedded(model, batch, noise, 1))
    assert not torch.equal(embedded(model, batch, noise, 1), embedded(model, batch, noise, 2))
    assert torch.equal(embedded(model, batch), embedded(model, batch, None, 2))
    with noise.during(batch), torch.no_grad():  # a base beside its tuning
        assert torch.equal(entry(model)(batch.source_BT), embedded(model, batch))
    with noise.during(batch):  # other rows, and what the decoder reads
        assert torch.equal(entry(model)(other.source_BT).detach(), embedded(model, other))
        decoder = model.network.get_decoder().get_input_embeddings()
        assert torch.equal(decoder(batch.tokens_BT), decoder(batch.tokens_BT))
