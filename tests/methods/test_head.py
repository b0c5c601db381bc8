import pytest
import torch

from tunewright.core.errors import BaseModelError
from tunewright.methods.head import Head
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train


class TestHead(MethodContract):
    method = Head()
    families = ("llama", "qwen3", "gpt_neox", "bert")
    refused = dict.fromkeys(
        ("gemma", "gemma2", "gemma3_text", "gpt2", "opt", "t5", "bart"), "shares its weights with the embeddings"
    )

    def expected_count(self, model: Model) -> int:
        return 0 if model.kind == "encoder" else model.width * model.vocabulary


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "t5", "bart"])
def test_a_tied_head_is_refused(family: str):
    with pytest.raises(BaseModelError, match="shares its weights with the embeddings"):
        Head().attach(tiny(family), 0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_under_a_new_head_nothing_of_the_base_is_trained(family: str):
    model = tiny(family)
    assert Head().attach_under_new_head(model, 0).count() == 0
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "opt", "t5", "bart", "llama"])
def test_the_hint_for_a_tied_head_works(family: str, tmp_path):
    """LoRA on a head that shares the embeddings' weight: merging must not change the embeddings."""
    from tunewright.models.loading import load_folder

    model = tiny(family)
    embedding = model.network.get_input_embeddings().weight.detach().clone()
    tuning = LoRA(rank=4, targets=("head",)).attach(model, 0)
    train(toy_engine(model, tuning), toy_trees(model), 3)
    attached = outputs(model, toy_trees(model))
    tuning.merge()
    assert torch.equal(model.network.get_input_embeddings().weight, embedding)
    assert difference(outputs(model, toy_trees(model)), attached) < 1e-5
    model.network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert difference(outputs(load_folder(tmp_path), toy_trees(model)), attached) < 1e-5
