"""The head for hidden words: the family's own layers, at the places that are asked for, with the body standing aside."""

import pytest
import torch

from tunewright.core.errors import BaseModelError
from tunewright.data.forest import Segment, Tree
from tunewright.engine.engine import Engine, LayoutName
from tunewright.engine.masked import _KNOWN, MaskedHead, hidden_words
from tunewright.engine.network import use_layout
from tunewright.engine.probe import probe
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.models import Model
from tunewright.testing.tiny import ENCODERS, tiny
from tunewright.testing.toy import difference


def deberta() -> Model:
    """A family whose output embedding is not its last product."""
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM

    config = DebertaV2Config(
        **{"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64},
        **{"max_position_embeddings": 64, "initializer_range": 0.2, "legacy": False, "type_vocab_size": 0},
    )
    bert = tiny("bert")
    return Model(DebertaV2ForMaskedLM(config).eval(), bert.tokenizer, "encoder", "deberta-v2", "tiny", None, "x")


@pytest.mark.parametrize("family", ENCODERS)
@torch.no_grad()
def test_it_gives_the_logits_of_the_network(family: str):
    model = tiny(family, own_head=True)
    use_layout(model, "padded")
    tokens_1T = torch.arange(5, 25)[None]
    wanted_TV = model.network(input_ids=tokens_1T).logits[0]
    hidden_TD = model.body(input_ids=tokens_1T).last_hidden_state[0]
    head, places = MaskedHead(model), torch.tensor([1, 7, 8])
    assert _KNOWN[model.network]
    assert difference(head.logits(hidden_TD[places]), wanted_TV[places]) < 1e-6
    assert difference(head.last.logits(head.states(hidden_TD[places])), wanted_TV[places]) < 1e-6
    targets_N = torch.tensor([3, 40, 299])
    weights_N = torch.tensor([1.0, 0.5, 2.0])
    scores = head.token_scores(hidden_TD[places], targets_N, top1=True)
    wanted_N = wanted_TV[places].log_softmax(1)[range(3), targets_N]
    assert difference(scores.log_probability_N, wanted_N) < 1e-5
    assert float(head.cross_entropy(hidden_TD[places], targets_N, weights_N).total) == pytest.approx(
        float(-(wanted_N * weights_N).sum())
    )
    assert torch.equal(model.network(input_ids=tokens_1T).logits[0], wanted_TV)  # nothing of it is left on the network


@torch.no_grad()
def test_a_head_that_ends_otherwise_gives_its_logits_itself():
    model = deberta()
    tokens_1T = torch.arange(5, 25)[None]
    wanted_TV = model.network(input_ids=tokens_1T).logits[0]
    hidden_TD = model.body(input_ids=tokens_1T).last_hidden_state[0]
    head, targets_T = MaskedHead(model), torch.arange(20)
    assert not _KNOWN[model.network]
    wanted_T = wanted_TV.log_softmax(1)[range(20), targets_T]
    assert difference(head.token_scores(hidden_TD, targets_T).log_probability_N, wanted_T) < 1e-5
    assert float(head.cross_entropy(hidden_TD, targets_T, torch.ones(20)).total) == pytest.approx(-float(wanted_T.sum()), rel=1e-5)


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("virtual", [False, True])
def test_hidden_words_are_found_where_they_stand(layout: LayoutName, virtual: bool):
    model = tiny("bert", own_head=True)
    if virtual:
        PromptTuning(virtual_tokens=3).attach(model, 0)
    engine = Engine(model, probed=probe(model)._replace(layout=layout))
    trees = [
        Tree((Segment((10, 4, 12), tags=(-1, 200, -1), values=(1.0,), row=0),)),
        Tree((Segment((20, 21, 4, 23, 24, 4), tags=(-1, 201, 202, -1, -1, 203), values=(0.5,), row=1),)),
    ]
    batch = engine.collate(trees)
    hidden = hidden_words(batch)
    assert hidden.targets_N.tolist() == [200, 201, 202, 203]
    assert batch.tokens_BT.flatten()[hidden.rows_N].tolist() == [4, 21, 4, 4]
    assert hidden.weights_N.tolist() == [1.0, 0.5, 0.5, 0.5]
    assert batch.row_S[hidden.owners_N].tolist() == [0, 1, 1, 1]


def test_a_bare_body_has_none():
    with pytest.raises(BaseModelError, match="loaded without a head for hidden words"):
        MaskedHead(tiny("bert"))
