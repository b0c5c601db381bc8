import time

import pytest
import torch

from tunewright.core.errors import UnknownNameError
from tunewright.testing.tiny import FAMILIES, byte_tokenizer, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_equal_weights_and_no_global_state(family: str):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    started = time.perf_counter()
    one = tiny(family)
    assert time.perf_counter() - started < 10  # the first of a process pays for imports; the others take about 0.03 s
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert one.fingerprint == tiny(family).fingerprint != tiny(family, seed=1).fingerprint
    assert sum(item.numel() for item in one.network.parameters()) < 100_000


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_large_enough_to_show_a_mistake(family: str):
    model = tiny(family)
    ids = torch.arange(10, 26)[None]
    more = {"decoder_input_ids": ids} if model.kind == "encoder_decoder" else {}
    with torch.no_grad():
        found = model.network(input_ids=ids, **more)[0]
        other = model.network(input_ids=ids.flip(1), **({"decoder_input_ids": ids} if more else {}))[0]
    assert 0.5 < float(found.std()) < 20
    assert float((found[0, -1] - other[0, -1]).abs().max()) > 0.1


@pytest.mark.parametrize(("kind", "ends"), [("decoder", ([], [])), ("encoder", ([1], [2])), ("encoder_decoder", ([], [2]))])
def test_the_tokenizer_is_one_token_a_byte(kind: str, ends: tuple[list[int], list[int]]):
    tokenizer, text = byte_tokenizer(kind), "Grüße,  welt \n\u4e16 </s>!"  # type: ignore[arg-type]
    plain = tokenizer(text, add_special_tokens=False).input_ids
    assert len(plain) == len(text.replace("</s>", "x").encode())  # the end token is one, whatever its bytes
    assert tokenizer.decode(plain) == text
    assert tokenizer(text).input_ids == [*ends[0], *plain, *ends[1]]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_a_misspelt_family():
    with pytest.raises(UnknownNameError, match="Did you mean 'llama'"):
        tiny("lama")
