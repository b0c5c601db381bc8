import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.errors import BaseModelError
from tunewright.models.loading import choose_pad, load
from tunewright.testing.tiny import FAMILIES, byte_tokenizer, kind_of_family, save_tiny, tiny

AUDITED: list[str] = []
WATCHING = False


def _hook(event: str, _arguments: object) -> None:
    if WATCHING and event in ("pickle.find_class", "socket.connect"):
        AUDITED.append(event)


sys.addaudithook(_hook)  # cannot be taken off again, hence the switch


def logits(model) -> torch.Tensor:
    ids = torch.tensor([model.tokenizer("Twelve lines of text.", add_special_tokens=False).input_ids])
    more = {"decoder_input_ids": ids[:, :5]} if model.kind == "encoder_decoder" else {}
    with torch.no_grad():
        return model.network(input_ids=ids, **more)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_base_loads_as_it_was(family: str, tmp_path: Path):
    made = tiny(family, seed=3)
    found = load(save_tiny(family, tmp_path / family, seed=3))
    assert torch.equal(logits(made), logits(found))
    assert found.kind == kind_of_family(family)
    assert found.family == family
    assert found.folder == tmp_path / family
    assert not found.network.training
    assert len(found.blocks) == (4 if found.kind == "encoder_decoder" else 2)
    assert (found.width, found.vocabulary) == (32, 300)
    assert found.context == (None if family == "t5" else 512)
    assert found.body is not None
    assert next(found.network.parameters()).dtype == torch.float32


def test_no_pickle_and_no_socket_while_loading(llama: Path):
    global WATCHING
    (llama / "pytorch_model.bin").write_bytes(b"not even a pickle")  # beside safetensors: never opened
    WATCHING = True
    try:
        load(llama)
    finally:
        WATCHING = False
    assert AUDITED == []


def test_the_audit_hook_would_have_seen_it():
    global WATCHING
    import pickle

    WATCHING = True
    try:
        pickle.loads(pickle.dumps(Path("x")))  # noqa: S301
    finally:
        WATCHING = False
    assert "pickle.find_class" in AUDITED
    AUDITED.clear()


def test_a_bare_body_and_a_head_that_is_not_there(tmp_path: Path):
    assert load(save_tiny("llama", tmp_path / "llama"), head=False).network.get_output_embeddings() is None
    said = r"has no head for hidden words: its files hold the body alone, and 6 tensors would be drawn .* \(cls\.predictions\.bias"
    with pytest.raises(BaseModelError, match=said):
        load(save_tiny("bert", tmp_path / "bert"), head=True)


def test_an_encoder_with_its_masked_language_model_head(tmp_path: Path):
    from transformers import BertForMaskedLM

    bare = tiny("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = BertForMaskedLM(bare.network.config)
    whole.save_pretrained(tmp_path)
    bare.tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path, head=True).network.get_output_embeddings() is not None
    body = load(tmp_path)  # its head is spare then, not unexpected
    assert torch.equal(body.network.embeddings.word_embeddings.weight, whole.bert.embeddings.word_embeddings.weight)


@pytest.mark.parametrize(
    ("family", "key"), [("opt", "num_hidden_layers"), ("bart", "decoder_layers"), ("bert", "num_hidden_layers")]
)
def test_a_bare_body_does_not_excuse_lost_blocks(tmp_path: Path, edit, family: str, key: str):
    edit(save_tiny(family, tmp_path) / "config.json", **{key: 1})
    with pytest.raises(BaseModelError, match="tensors that the network does not have"):
        load(tmp_path, head=False)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma", "t5", "bart"])
def test_bare_bodies(tmp_path: Path, family: str):
    whole = tiny(family)
    bare = load(save_tiny(family, tmp_path), head=False)
    assert torch.equal(whole.network.get_input_embeddings().weight, bare.network.get_input_embeddings().weight)
    assert len(bare.blocks) == len(whole.blocks)
    assert bare.body is bare.network


def test_an_encoder_pretrained_with_a_pooler_and_a_second_task(tmp_path: Path):
    from transformers import BertForPreTraining

    bare = tiny("bert")
    BertForPreTraining(bare.network.config).save_pretrained(tmp_path)
    bare.tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).kind == "encoder"
    assert load(tmp_path, head=True).network.get_output_embeddings() is not None


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", torch.bfloat16), ("auto", torch.float32), ("float16", torch.float16)])
def test_dtype(llama: Path, dtype: str, stored: torch.dtype):
    assert next(load(llama, dtype=dtype).network.parameters()).dtype == stored


def test_a_misspelt_dtype(llama: Path):
    with pytest.raises(BaseModelError, match="Did you mean 'bfloat16'"):
        load(llama, dtype="bfloat")


def test_one_tensor_missing(llama: Path, reweigh):
    reweigh(llama, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(BaseModelError, match=r"lacks 1 tensors of the network: model\.layers\.1\.mlp\.up_proj\.weight"):
        load(llama)


def test_one_tensor_too_many(llama: Path, reweigh):
    reweigh(llama, lambda tensors: tensors.update({"model.layers.1.mlp.gift.weight": torch.ones(3)}))
    with pytest.raises(BaseModelError, match=r"1 tensors that the network does not have: model\.layers\.1\.mlp\.gift"):
        load(llama)


def test_a_tensor_of_another_shape(llama: Path, edit):
    edit(llama / "config.json", intermediate_size=65)
    with pytest.raises(BaseModelError, match=r"has 6 tensors of the wrong shape: .*\(32, 64\), config.json asks for \(32, 65\)"):
        load(llama)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite(llama: Path, reweigh, poison: float):
    reweigh(llama, lambda tensors: tensors["model.layers.0.mlp.up_proj.weight"].view(-1)[7:8].fill_(poison))
    with pytest.raises(BaseModelError, match=r"model\.layers\.0\.mlp\.up_proj\.weight' holds numbers that are not finite"):
        load(llama)


def test_large_half_precision_sums_are_finite(tmp_path: Path, llama: Path, reweigh):
    reweigh(llama, lambda tensors: [item.fill_(100.0) for item in tensors.values()])
    assert load(llama, dtype="float16").vocabulary == 300  # 9,600 * 100 is beyond fp16, the weights are not


def test_more_blocks_than_weights(llama: Path, edit):
    edit(llama / "config.json", num_hidden_layers=1000)
    with pytest.raises(BaseModelError, match="promises 1000 blocks, and the weights hold 2"):
        load(llama)


def test_fewer_blocks_than_weights(llama: Path, edit):
    edit(llama / "config.json", num_hidden_layers=1, layer_types=None)
    with pytest.raises(BaseModelError, match="tensors that the network does not have"):
        load(llama)


def test_a_tokenizer_larger_than_the_embedding(llama: Path):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"word{index}" for index in range(60)])
    tokenizer.save_pretrained(llama)
    with pytest.raises(BaseModelError, match="knows ids up to 320, and its embedding has 300 rows"):
        load(llama)


def test_a_broken_tokenizer(llama: Path):
    (llama / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(BaseModelError, match="its tokenizer cannot be read"):
        load(llama)


def test_no_end_token(llama: Path, edit):
    edit(llama / "tokenizer_config.json", eos_token=None)
    with pytest.raises(BaseModelError, match=r"has no end token.*eos_token"):
        load(llama)


def test_a_whole_network_beside_an_adapter(llama: Path):
    (llama / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match="not clear which is meant"):
        load(llama)


def test_the_pad_token_is_never_the_end_token_in_silence():
    tokenizer = byte_tokenizer()
    assert choose_pad(tokenizer) == ""
    tokenizer.pad_token = "</s>"
    assert "pads with its end token" in choose_pad(tokenizer)
    for taken, chosen in (("nothing", "<pad>"), ("<pad>", "<unk>")):
        spare = byte_tokenizer()
        spare.pad_token = None
        if taken == "<pad>":
            inner = spare.backend_tokenizer.to_str().replace('"<pad>"', '"~pad~"')
            spare = type(spare)(tokenizer_object=type(spare.backend_tokenizer).from_str(inner), eos_token="</s>", unk_token="<unk>")
        assert chosen in choose_pad(spare)
        assert spare.pad_token == chosen


def test_a_tokenizer_with_nothing_to_spare():
    tokenizer = byte_tokenizer()
    inner = tokenizer.backend_tokenizer.to_str().replace('"<pad>"', '"~pad~"')
    bare = type(tokenizer)(tokenizer_object=type(tokenizer.backend_tokenizer).from_str(inner), eos_token="</s>", bos_token="</s>")
    assert "none to spare; '</s>' serves" in choose_pad(bare)
    assert bare.pad_token_id == bare.eos_token_id == 2


@pytest.mark.parametrize(("family", "message"), [("vit", "no decoder for text"), ("lama", "Did you mean 'llama'")])
def test_families_that_are_not_text(llama: Path, edit, family: str, message: str):
    edit(llama / "config.json", model_type=family, architectures=["ViTModel"])
    with pytest.raises(BaseModelError, match=message):
        load(llama)


def test_shards(llama: Path):
    import json

    tensors = load_file(llama / "model.safetensors")
    names = sorted(tensors)
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    whole = logits(load(llama))
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, llama / file, metadata={"format": "pt"})
    (llama / "model.safetensors").unlink()
    (llama / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert torch.equal(logits(load(llama)), whole)


def test_loading_prints_nothing(llama: Path):
    code = f"from tunewright.models.loading import load; load({str(llama)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
