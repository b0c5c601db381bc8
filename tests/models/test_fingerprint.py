import json
from pathlib import Path

import torch

from tunewright.models.fingerprint import fingerprint, fingerprint_of
from tunewright.models.loading import load
from tunewright.testing.tiny import save_tiny, tiny


def test_equal_files_equal_fingerprint_wherever_they_lie(tmp_path: Path):
    first, second = save_tiny("llama", tmp_path / "a"), save_tiny("llama", tmp_path / "b")
    assert fingerprint(first) == fingerprint(second) == load(first).fingerprint
    assert len(fingerprint(first)) == 64
    assert fingerprint(save_tiny("llama", tmp_path / "c", seed=1)) != fingerprint(first)


def test_what_changes_it(llama: Path, reweigh, edit):
    seen = [fingerprint(llama)]
    reweigh(llama, lambda tensors: tensors["model.norm.weight"][:1].add_(1e-6))
    seen.append(fingerprint(llama))
    (llama / "chat_template.jinja").write_text("{{ messages }}")
    seen.append(fingerprint(llama))
    tokenizer = json.loads((llama / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = [["a", "b"]]
    (llama / "tokenizer.json").write_text(json.dumps(tokenizer))
    seen.append(fingerprint(llama))
    edit(llama / "config.json", rms_norm_eps=1e-3)
    seen.append(fingerprint(llama))
    assert len(set(seen)) == len(seen)


def test_what_does_not_change_it(llama: Path, edit):
    before = fingerprint(llama)
    edit(llama / "config.json", transformers_version="9.9", use_cache=False, _name_or_path="elsewhere")
    (llama / "README.md").write_text("about")
    assert fingerprint(llama) == before


def test_in_memory():
    one = tiny("llama")
    assert one.fingerprint == tiny("llama").fingerprint != tiny("llama", seed=1).fingerprint
    with torch.no_grad():
        one.network.lm_head.weight[0, 0] += 1e-3
    assert fingerprint_of(one.network, one.tokenizer) != one.fingerprint
    other = tiny("llama")
    other.tokenizer.chat_template = "{{ messages }}"
    assert fingerprint_of(other.network, other.tokenizer) != other.fingerprint
    half = tiny("llama")
    assert fingerprint_of(half.network.to(torch.bfloat16), half.tokenizer) != half.fingerprint
