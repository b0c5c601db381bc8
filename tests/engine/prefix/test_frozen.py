"""Cached equals uncached, bit for bit for the same batches; and a cache that could be wrong is not used."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tunewright.core.seeds import derive
from tunewright.data.forest import Segment, Tree
from tunewright.engine.engine import Engine
from tunewright.engine.prefix.frozen import FrozenPrefix, Place, fill, freeze
from tunewright.engine.settings import Cache
from tunewright.methods.full import Full
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss, toy_trees

UPPER = LoRA(rank=2, targets=(r"re:.*\.1\..*(q_proj|up_proj|c_attn|query|query_key_value|Wqkv|qkv_proj)",))


def ready(family: str, method=UPPER, layout: str | None = None, drop: float = 0.0) -> Engine:
    """An engine whose trained tensors are not at their start, so that every gradient is one."""
    model = tiny(family)
    engine = toy_engine(model, method.attach(model, 0), layout)
    with torch.no_grad():
        for name, parameter in engine.parameters.items():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05)
    for module in model.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = drop
    model.network.train()
    return engine


def gradients(engine: Engine, pass_: Callable[[int], Tensor], batches: int) -> list[Tensor]:
    """Of a step of several batches, each with its own dropout, as the engine makes them."""
    for parameter in engine.parameters.values():
        parameter.grad = None
    for number in range(batches):
        torch.manual_seed(derive(1, "dropout", number))
        pass_(number).backward()
    return [parameter.grad.clone() for parameter in engine.parameters.values()]


def through(frozen: FrozenPrefix, engine: Engine, batches) -> Callable[[int], Tensor]:
    return lambda number: frozen.hidden(
        batches[number], lambda: toy_loss(engine, batches[number]).total, lambda: engine.hidden(batches[number])
    )


FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "gpt2", "opt", "bert", "roberta", "modernbert")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [UPPER, Selective(last_blocks=1)], ids=["lora", "selective"])
def test_cached_is_uncached_bit_for_bit(family: str, method, tmp_path: Path):
    engine = ready(family, method, drop=0.3)
    trees = toy_trees(engine.model, 6)
    batches = [engine.collate(trees[:2]), engine.collate(trees[2:3]), engine.collate(trees[3:])]
    none, kept = freeze(engine, Cache(when="off")), freeze(engine, Cache(folder=tmp_path))
    assert none is not None
    assert kept is not None
    plain = gradients(engine, through(none, engine, batches), 3)
    for epoch in range(3):
        found = gradients(engine, through(kept, engine, batches), 3)
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True)), epoch
    size = sum(batch.tokens for batch in batches)
    assert kept.counts.computed == size + batches[0].tokens  # the first epoch, and once more to compare
    assert kept.counts.read == 2 * size - batches[0].tokens
    assert none.counts.read == 0
    assert all(gradient.abs().max() > 0 for gradient in plain)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_without_dropout_the_cut_changes_no_bit(family: str, tmp_path: Path):
    engine = ready(family)
    batches = [engine.collate(toy_trees(engine.model, 4))]
    plain = gradients(engine, lambda number: toy_loss(engine, batches[number]).total, 1)
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    for _ in range(3):
        found = gradients(engine, through(frozen, engine, batches), 1)
        assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_only_the_head_is_trained(tmp_path: Path):
    engine = ready("bert", Head())
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    assert frozen.cut == 2
    batches = [engine.collate(toy_trees(engine.model, 4))]
    plain = gradients(engine, lambda number: toy_loss(engine, batches[number]).total, 1)
    for _ in range(3):
        assert all(map(torch.equal, gradients(engine, through(frozen, engine, batches), 1), plain))
    assert frozen.counts.read == batches[0].tokens
    assert "no block is trained" in frozen.sentence()


def test_another_packing_and_another_process_read_the_same_states(tmp_path: Path):
    engine = ready("llama")
    trees = toy_trees(engine.model, 6)
    first = freeze(engine, Cache(folder=tmp_path))
    assert first is not None
    with torch.no_grad():
        for tree in trees:
            batch = engine.collate([tree])
            first.keep(batch, lambda batch=batch: engine.hidden(batch))
    again = ready("llama")
    later = freeze(again, Cache(folder=tmp_path))
    assert later is not None
    for order in (trees, trees[::-1], trees[2:5]):
        batch = again.collate(order)
        with torch.no_grad():
            found = later.hidden(batch, lambda batch=batch: again.hidden(batch))
            assert difference(found, again.hidden(batch)) < 1e-5
    assert later.counts.computed == again.collate(trees).tokens  # the first batch tells the form, and is compared
    assert later.counts.read == again.collate(trees).tokens + again.collate(trees[2:5]).tokens


def test_a_batch_with_something_new_is_computed_and_completes_the_cache(tmp_path: Path):
    engine = ready("llama")
    trees = toy_trees(engine.model, 4)
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    for part in (trees[:2], trees, trees):
        batch = engine.collate(part)
        with torch.no_grad():
            frozen.hidden(batch, lambda batch=batch: engine.hidden(batch))
    assert frozen.cache is not None
    assert len(frozen.cache) == 4
    assert frozen.counts.read == 0  # the third is compared
    assert frozen.cache.discarded == 0


def test_filling_at_once_reads_from_the_first_batch_on(tmp_path: Path):
    engine = ready("llama")
    batches = [engine.collate(toy_trees(engine.model, 3, seed)) for seed in range(3)]
    frozen = freeze(engine, Cache.model_validate("at_once").model_copy(update={"folder": tmp_path}))
    assert frozen is not None
    fill(frozen, engine, [*batches, batches[0]])
    assert frozen.counts.read == 0
    gradients(engine, through(frozen, engine, batches), 3)
    assert frozen.counts.read == sum(batch.tokens for batch in batches)


def test_wrong_states_under_the_right_key_are_found_and_thrown_away(tmp_path: Path):
    engine = ready("llama")
    batch = engine.collate(toy_trees(engine.model, 3))
    liar = freeze(engine, Cache(folder=tmp_path))
    assert liar is not None
    below = liar.prefix.below
    liar.prefix.below = lambda run: below(run) * 1.01
    liar.keep(batch, lambda: engine.hidden(batch))
    honest = freeze(engine, Cache(folder=tmp_path))
    assert honest is not None
    with torch.no_grad():
        found = [honest.hidden(batch, lambda: engine.hidden(batch)) for _ in range(4)]
        plain = engine.hidden(batch)
    assert all(torch.equal(one, plain) for one in found)
    assert honest.cache is not None
    assert honest.cache.discarded == 1
    assert honest.counts.read > 0


def touched(engine: Engine) -> None:
    with torch.no_grad():
        engine.model.blocks[0].get_submodule("mlp.up_proj").weight.mul_(1.5)


def replaced(engine: Engine) -> None:
    parent = engine.model.blocks[0].get_submodule("mlp")
    parent.up_proj = nn.Linear(parent.up_proj.in_features, parent.up_proj.out_features, bias=False)


@pytest.mark.parametrize(
    "change", [touched, replaced, lambda engine: LoRA(rank=2).attach(engine.model, 1)], ids=["touched", "replaced", "attached"]
)
def test_a_change_below_ends_the_cache(change: Callable[[Engine], object], tmp_path: Path):
    engine = ready("llama", Selective(last_blocks=1))
    batch = engine.collate(toy_trees(engine.model, 3))
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    with torch.no_grad():
        for _ in range(3):
            frozen.hidden(batch, lambda: engine.hidden(batch))
        read = frozen.counts.read
        assert read > 0
        change(engine)
        assert torch.equal(frozen.hidden(batch, lambda: engine.hidden(batch)), engine.hidden(batch))
    assert frozen.counts.read == read
    assert "has changed" in frozen.sentence()


def test_autocast_and_float32_never_meet(tmp_path: Path):
    engine = ready("llama")
    batch = engine.collate(toy_trees(engine.model, 3))
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    with torch.no_grad():
        for _ in range(3):
            frozen.hidden(batch, lambda: engine.hidden(batch))
        read = frozen.counts.read
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(frozen.hidden(batch, lambda: engine.hidden(batch)), engine.hidden(batch))
        assert frozen.counts.read == read
        half = freeze(engine, Cache(folder=tmp_path))
        assert half is not None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(3):
                found = half.hidden(batch, lambda: engine.hidden(batch))
            assert torch.equal(found, engine.hidden(batch))
        assert half.counts.read == batch.tokens
    assert len(list(tmp_path.iterdir())) == 2


def test_where_the_first_block_is_trained_nothing_is_frozen():
    assert freeze(ready("llama", Full()), Cache()) is None
    assert freeze(ready("t5", LoRA(rank=2, targets=(r"re:decoder\.block\.1\..*\.q",))), Cache()) is None


def test_padded_rows_are_cut_but_not_kept(tmp_path: Path):
    engine = ready("llama", layout="padded")
    batches = [engine.collate(toy_trees(engine.model, 3))]
    frozen = freeze(engine, Cache(folder=tmp_path / "cache"))
    assert frozen is not None
    plain = gradients(engine, lambda number: toy_loss(engine, batches[number]).total, 1)
    for _ in range(2):
        assert all(map(torch.equal, gradients(engine, through(frozen, engine, batches), 1), plain))
    assert not (tmp_path / "cache").exists()
    assert "padded" in frozen.sentence()


def test_a_place_that_cannot_be_written_is_said_and_not_raised(tmp_path: Path):
    (tmp_path / "file").write_text("")
    engine = ready("llama")
    batch = engine.collate(toy_trees(engine.model, 3))
    frozen = freeze(engine, Cache(folder=tmp_path / "file"))
    assert frozen is not None
    with torch.no_grad():
        assert torch.equal(frozen.hidden(batch, lambda: engine.hidden(batch)), engine.hidden(batch))
    assert "cannot be kept there" in frozen.sentence()


def test_the_sentence_says_what_where_and_how_much(tmp_path: Path):
    engine = ready("llama")
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    text = frozen.sentence(1_000_000)
    assert text.startswith("1 of 2 blocks are trained")
    assert "about 128 MB" in text
    assert str(tmp_path) in text
    off = freeze(engine, Cache.model_validate("off"))
    assert off is not None
    assert off.sentence().endswith("not kept: no cache was asked for")


def test_a_tuning_that_trains_below_is_told_apart():
    engine = ready("llama")
    frozen = FrozenPrefix(engine.model, 1)
    assert frozen.still_holds(engine.parameters)
    assert frozen.still_holds({"head.output.weight": nn.Parameter(torch.zeros(2, 2))})
    assert not frozen.still_holds({"prompt": nn.Parameter(torch.zeros(2, 2))})
    assert not frozen.still_holds(LoRA(rank=2).attach(engine.model, 1).parameters())


def test_the_place_is_a_quarter_of_the_disk_unless_said(tmp_path: Path):
    assert Place(tmp_path).budget is None
    engine = ready("llama")
    frozen = freeze(engine, Cache(folder=tmp_path, budget_gb=0.5))
    assert frozen is not None
    assert frozen.place == Place(tmp_path, 500_000_000)


def test_weights_in_parts_are_left_alone():
    class Part(torch.Tensor):
        """What a placement puts in a weight's place."""

    engine = ready("llama")
    block = engine.model.blocks[0].get_submodule("mlp.up_proj")
    block.weight = nn.Parameter(block.weight.detach().as_subclass(Part), requires_grad=False)
    assert freeze(engine, Cache()) is None


def test_the_account_is_a_sentence(tmp_path: Path):
    engine = ready("llama")
    frozen = freeze(engine, Cache(folder=tmp_path))
    assert frozen is not None
    batch = engine.collate(toy_trees(engine.model, 3))
    with torch.no_grad():
        for _ in range(4):
            frozen.hidden(batch, lambda: engine.hidden(batch))
    assert frozen.counts.sentence().startswith("50 % of the states")


def test_rows_that_are_filled_up_are_read_in_any_company(tmp_path: Path):
    """What fills a row up depends on which trees met in it; no state of it is needed to read theirs."""
    engine = ready("llama")
    drawn = torch.randint(5, 90, (4, 180), generator=torch.Generator().manual_seed(0)).tolist()
    trees = [
        Tree((Segment(tuple(tokens[:length]), None, (0.0,) * (length - 9) + (1.0,) * 9),))
        for tokens, length in zip(drawn, (130, 141, 155, 180), strict=True)
    ]
    kept, none = freeze(engine, Cache(folder=tmp_path)), freeze(engine, Cache(when="off"))
    assert kept is not None
    assert none is not None
    first = [engine.collate([trees[one] for one in pair]) for pair in ((0, 1), (2, 3))]
    second = [engine.collate([trees[one] for one in pair]) for pair in ((0, 2), (3, 1))]
    assert all(batch.layout is not None and batch.layout.filled for batch in (*first, *second))
    assert len({batch.layout.lengths[-1] for batch in (*first, *second) if batch.layout is not None}) > 1
    gradients(engine, through(kept, engine, first), 2)
    found = gradients(engine, through(kept, engine, second), 2)
    assert kept.counts.read == sum(len(tree.segments[0].tokens) for tree in (trees[3], trees[1]))  # the first was compared
    plain = gradients(engine, through(none, engine, second), 2)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
