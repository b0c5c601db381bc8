"""Virtual tokens through everything that the engine does, against vectors put in front by hand."""

from collections.abc import Sequence

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine.engine import Engine
from tunewright.engine.members import Member
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.prefix.cut import lowest_trainable_block
from tunewright.engine.probe import probe
from tunewright.engine.recompute import Recomputing
from tunewright.engine.sampling import Prompt, sample, sample_groups
from tunewright.engine.sampling.forest import common
from tunewright.engine.scoring import score_continuations
from tunewright.engine.settings import AdamW, Sampling
from tunewright.engine.virtual import entry, ids_of, mount, unmount
from tunewright.engine.virtual.modules import Vectors
from tunewright.methods import Method, Tuning
from tunewright.methods.lora import LoRA
from tunewright.methods.prefix_tuning import PrefixTuning
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_trees

P = 6
SOFT: dict[str, Method] = {"vectors": PromptTuning(virtual_tokens=P), "keys": PrefixTuning(virtual_tokens=P)}


def bank(model: Model, methods: Sequence[Method]) -> tuple[Engine, list[Tuning]]:
    """Tunings of different methods on one base, each a member."""
    tunings = [method.attach(model, number) for number, method in enumerate(methods)]
    engine = Engine(model, probed=probe(model))
    for tuning in tunings:
        engine.join(tuning.slot, Member(tuning.parameters(), Optimizer(AdamW(), tuning.parameters())))
    return engine, tunings


def owned(model: Model, tuning: int, seed: int) -> list[Tree]:
    return [tree.owned_by(tuning) for tree in toy_trees(model, 3, seed=seed)]


def test_ids_are_negative_and_nobody_elses():
    assert ids_of(0, 2) == (-1, -2)
    assert not set(ids_of(0, 200)) & set(ids_of(1, 200))
    with pytest.raises(ValueError, match="1 to 4096 virtual tokens"):
        ids_of(0, 5000)


def test_the_embedding_is_a_plain_one_again():
    model = tiny("llama")
    modules, forward = list(model.network.modules()), entry(model).forward
    for slot in (0, 1):
        mount(model, slot, Vectors(torch.zeros(2, 32)))
    with pytest.raises(ValueError, match="tuning 1 has virtual tokens already"):
        mount(model, 1, Vectors(torch.zeros(2, 32)))
    unmount(model, 0)
    assert model.lanes.begins == {1: (-4097, -4098)}
    unmount(model, 1)
    assert list(model.network.modules()) == modules
    assert entry(model).forward == forward


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "gpt2", "opt", "bert", "roberta", "distilbert", "t5", "bart"])
def test_vectors_stand_where_embeddings_would(family: str):
    """The embeddings of words as a soft prompt are those words."""
    model, words = tiny(family), (9, 40, 77)
    tokens, answer = torch.tensor([[11, 12, 13, 14]]), {"decoder_input_ids": torch.tensor([[7, 8]])}
    given = answer if model.kind == "encoder_decoder" else {}
    with torch.no_grad():
        wanted = model.network(input_ids=torch.cat([torch.tensor([words]), tokens], dim=1), **given)[0]
        mount(model, 0, Vectors(entry(model)(torch.tensor([words]))[0]))
        found = model.network(input_ids=torch.cat([torch.tensor([ids_of(0, 3)]), tokens], dim=1), **given)[0]
    assert difference(found, wanted) < 1e-6


def test_a_forest_has_one_root_a_tuning():
    model = tiny("llama")
    engine, _ = bank(model, [LoRA(rank=2), *SOFT.values()])
    trees = [tree for tuning in (2, 0, 1) for tree in owned(model, tuning, tuning)]
    batch = engine.collate(trees)
    sizes = [sum(tree.size for tree in trees if tree.tuning == tuning) for tuning in (0, 1, 2)]
    assert [(lane.tuning, lane.stop - lane.start) for lane in batch.lanes] == [(0, sizes[0]), (1, sizes[1] + P), (2, sizes[2] + P)]
    assert batch.tokens == sum(sizes) + 2 * P == batch.part(0).tokens + batch.part(1).tokens + batch.part(2).tokens
    assert batch.layout.paths == ((), (), (), (), (3,), (3,), (3,), (), (7,), (7,), (7,))
    flat = batch.tokens_BT[0]
    assert tuple(flat[batch.lanes[1].start : batch.lanes[1].start + P].tolist()) == ids_of(1, P)
    assert int(batch.positions_BT[0, batch.lanes[1].start + P]) == P
    # What learns and what is read is what there is without virtual tokens.
    for tree, (start, stop) in zip(sorted(trees, key=lambda tree: tree.tuning), batch.spans_S2.tolist(), strict=True):
        assert tuple(flat[start:stop].tolist()) == tree.segments[0].tokens
    assert torch.equal(flat[batch.rows_N + 1], batch.targets_N)
    assert len(batch.row_S) == len(batch.labels_S) == len(trees)


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_an_encoder_pools_over_the_text_alone(layout: str):
    model = tiny("bert")
    tuning = PromptTuning(virtual_tokens=P).attach(model, 0)
    engine, trees = toy_engine(model, tuning, layout), toy_trees(model)
    assert engine.layout == layout
    batch = engine.collate(trees)
    flat = batch.tokens_BT.flatten()
    for tree, (start, stop) in zip(trees, batch.spans_S2.tolist(), strict=True):
        assert tuple(flat[start - P : start].tolist()) == ids_of(0, P)
        assert tuple(flat[start:stop].tolist()) == tree.segments[0].tokens
    with engine.evaluating():
        hidden = engine.hidden(batch)
        for tree, (start, stop) in zip(trees, batch.spans_S2.tolist(), strict=True):
            tokens = torch.tensor([ids_of(0, P) + tree.segments[0].tokens])
            alone = toy_engine(model, tuning, "padded").model.network(input_ids=tokens).last_hidden_state[0, P:]
            engine = toy_engine(model, tuning, layout)
            assert difference(hidden[start:stop], alone) < 1e-5


def test_targets_without_a_token_before_them_follow_the_virtual_ones():
    model = tiny("llama")
    tuning = PromptTuning(virtual_tokens=P).attach(model, 0)
    tree = Tree((Segment(()), Segment((9, 10), 0, (1.0, 1.0))))
    found = [toy_engine(model, tuning, layout).score([tree])[0] for layout in ("forest", "padded")]
    assert difference(*found) < 1e-5
    tuning.detach()
    with pytest.raises(ValueError, match="nothing stands before it"):
        toy_engine(model).score([tree])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("soft", SOFT)
def test_layouts_agree_and_so_do_their_gradients(soft: str, family: str):
    found = []
    for layout in ("forest", "padded"):
        model = tiny(family)
        tuning = SOFT[soft].attach(model, 0)
        engine = toy_engine(model, tuning, layout)
        assert engine.layout == layout
        engine.forward_backward([engine.collate(toy_trees(model))], lambda engine, batch: engine.language_loss(batch))
        (parameter,) = tuning.parameters().values()
        found.append((engine.score(toy_trees(model))[0], parameter.grad))
    assert difference(found[0][0], found[1][0]) < 1e-5
    assert difference(found[0][1], found[1][1]) < 2e-5


def test_tunings_of_a_bank_are_what_they_are_alone():
    methods = [LoRA(rank=2), *SOFT.values(), PromptTuning(virtual_tokens=2)]
    model = tiny("llama")
    engine, tunings = bank(model, methods)
    trees = [tree for tuning in tunings for tree in owned(model, tuning.slot, 5)]
    engine.forward_backward(
        [engine.collate(trees)], {tuning.slot: lambda engine, part: engine.language_loss(part) for tuning in tunings}
    )
    for number, method in enumerate(methods):
        alone = tiny("llama")
        tuning = method.attach(alone, number)
        other = Engine(alone, tuning.parameters(), probe(alone))
        other.forward_backward([other.collate(owned(alone, 0, 5))], lambda engine, batch: engine.language_loss(batch))
        for one, wanted in zip(tunings[number].parameters().values(), tuning.parameters().values(), strict=True):
            assert difference(one.grad, wanted.grad) < 2e-5
    assert engine.members[1].accumulated.count == sum(tree.trained for tree in owned(model, 1, 5))


@pytest.mark.parametrize("soft", SOFT)
def test_recomputed_gradients_are_the_same_bits_also_when_another_pass_came_between(soft: str):
    found = []
    for again in (False, True):
        model = tiny("llama")
        tuning = SOFT[soft].attach(model, 0)
        engine = toy_engine(model, tuning)
        engine.probed = engine.probed._replace(narrows=False)  # a narrowed last block is never recomputed
        if again:
            Recomputing(model)
        batch = engine.collate(toy_trees(model))
        loss = engine.language_loss(batch)
        with tuning.disabled(), torch.no_grad():
            engine.language_loss(engine.collate(toy_trees(model, 2, seed=9)))
        loss.total.backward()
        (parameter,) = tuning.parameters().values()
        found.append(parameter.grad)
    assert torch.equal(*found)


def test_nothing_below_a_soft_prompt_is_kept():
    model = tiny("llama")
    tuning = PromptTuning(virtual_tokens=P).attach(model, 0)
    assert lowest_trainable_block(model, tuning.parameters()) == 0
    for parameter in tuning.parameters().values():
        parameter.requires_grad_(False)  # read only: states still depend on vectors that the key of a cache does not hold
    assert lowest_trainable_block(model, {}) == 0
    tuning.detach()
    assert lowest_trainable_block(model, {}) == 2


@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_answers_are_those_of_transformers(soft: str, family: str):
    """Greedy answers, of several prompts in one call, against transformers' own forward call a token at a time."""
    model = tiny(family)
    tuning = SOFT[soft].attach(model, 0)
    engine = toy_engine(model, tuning)
    prompts = [tree.segments[0].tokens for tree in toy_trees(model, seed=1)]
    found = sample(engine, prompts, Sampling(max_new_tokens=6, temperature=0), ends=frozenset())
    padded = toy_engine(model, tuning, "padded")
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = [*ids_of(0, P), *prompt]
        for _ in range(6):
            with torch.no_grad():
                tokens.append(int(padded.model.network(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer.tokens == tuple(tokens[-6:])


def test_tunings_of_different_prompts_answer_in_one_call():
    model = tiny("llama")
    engine, tunings = bank(model, [PromptTuning(virtual_tokens=2), LoRA(rank=2), *SOFT.values()])
    texts = [tree.segments[0].tokens for tree in toy_trees(model, seed=1)]
    prompts = [Prompt(text, tuning.slot) for text in texts for tuning in tunings]
    settings = Sampling(max_new_tokens=8, temperature=0.9, seed=4)
    together = sample(engine, prompts, settings, ends=frozenset({2}))
    uncached = sample(engine, prompts, settings, ends=frozenset({2}), cache=False)
    assert together == uncached
    groups = sample_groups(engine, prompts, Sampling(max_new_tokens=4, temperature=0), ends=frozenset(), samples=3)
    greedy = sample(engine, prompts, Sampling(max_new_tokens=4, temperature=0), ends=frozenset())
    assert [{one.tokens for one in group} for group in groups] == [{one.tokens} for one in greedy]
    assert len({together[place].tokens for place in range(len(tunings))}) == len(tunings)


def test_a_soft_prompt_is_a_common_beginning_whatever_its_length():
    assert common([Prompt((*ids_of(0, 2), 7, 8)), Prompt((*ids_of(0, 2), 7, 9))]) == 3
    assert common([Prompt((*ids_of(0, 2), 7, 8)), Prompt((*ids_of(0, 2), 5))]) == 2
    assert common([Prompt((7, 8)), Prompt((7, 9))]) == 0
    assert common([Prompt((*ids_of(0, 2), 7)), Prompt((*ids_of(1, 2), 7), 1)]) == 0


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_scores_are_those_behind_the_prompt(family: str):
    model = tiny(family)
    tuning = PromptTuning(virtual_tokens=P).attach(model, 0)
    engine = toy_engine(model, tuning)
    prompts, options = [(9, 10, 11), (9, 10, 12)], [[(20, 21), (22,)], [(23, 24)]]
    found = score_continuations(engine, prompts, options)
    for prompt, own, scored in zip(prompts, options, found, strict=True):
        for option, one in zip(own, scored, strict=True):
            ahead = torch.tensor([ids_of(0, P) + prompt])
            with torch.no_grad():
                if model.kind == "decoder":
                    tokens = torch.cat([ahead, torch.tensor([option])], dim=1)
                    logits = toy_engine(model, tuning, "padded").model.network(input_ids=tokens).logits[0, ahead.shape[1] - 1 : -1]
                else:
                    fed = torch.tensor([(0, *option[:-1])])
                    logits = model.network(input_ids=ahead, decoder_input_ids=fed).logits[0]
            wanted = logits.log_softmax(1).gather(1, torch.tensor(option)[:, None]).sum()
            assert one.log_probability == pytest.approx(float(wanted), abs=1e-4)
        engine = toy_engine(model, tuning)


def test_the_last_block_is_narrowed_as_ever():
    model = tiny("llama")
    tuning = PrefixTuning(virtual_tokens=P).attach(model, 0)
    engine = toy_engine(model, tuning)
    assert engine.narrow.parts
    batch = engine.collate(toy_trees(model))
    with engine.evaluating():
        rows = batch.rows_N[:3]
        assert difference(engine.hidden_at(batch, rows), engine.hidden(batch)[rows]) < 1e-5


def test_half_precision_takes_the_vectors_in_its_own():
    model = tiny("llama")
    tuning = PrefixTuning(virtual_tokens=P).attach(model, 0)
    engine = toy_engine(model, tuning)
    exact = engine.score(toy_trees(model))[0]
    model.network.to(torch.bfloat16)
    assert {parameter.dtype for parameter in tuning.parameters().values()} == {torch.float32}
    assert difference(engine.score(toy_trees(model))[0].float(), exact) < 0.1
