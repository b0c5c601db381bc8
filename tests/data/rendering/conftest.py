"""Tiny tokenizers built in code, and chat templates in the manner of the ones that are out there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = """\
{%- for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CHATML_MARKED = """\
{%- for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA3 = """\
{{- bos_token }}{% for m in messages %}
{{- '<|head|>' ~ m.role ~ '<|/head|>\\n\\n' ~ (m.content | trim) ~ '<|eot|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}"""

MISTRAL = """\
{{- bos_token }}{% set ns = namespace(user=true) %}
{%- for m in messages %}
{%- if (m.role == 'user') != ns.user %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}
{%- set ns.user = not ns.user %}
{%- if m.role == 'user' %}{{ '[INST] ' ~ m.content ~ ' [/INST]' }}{% else %}{{ ' ' ~ (m.content | trim) ~ eos_token }}{% endif %}
{%- endfor %}"""

LLAMA2 = """\
{%- if messages[0].role == 'system' %}{% set sys = '<<SYS>>\\n' ~ messages[0].content ~ '\\n<</SYS>>\\n\\n' %}
{%- set rest = messages[1:] %}
{%- else %}{% set sys = '' %}{% set rest = messages %}{% endif %}
{%- for m in rest %}
{%- if m.role == 'user' %}{{ bos_token ~ '[INST] ' ~ (sys if loop.first else '') ~ (m.content | trim) ~ ' [/INST]' }}
{%- else %}{{ ' ' ~ (m.content | trim) ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"""

GEMMA = """\
{{- bos_token }}{% set ns = namespace(first='') %}
{%- for m in messages %}
{%- if m.role == 'system' %}{% set ns.first = m.content ~ '\\n\\n' %}
{%- else %}{{ '<turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ ns.first ~ (m.content | trim) ~ '<turn/>\\n' }}
{%- set ns.first = '' %}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}"""

PHI3 = """\
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

# Thoughts of earlier turns are dropped; the last answer always gets a block of thoughts, even an empty one.
QWEN3 = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{% set said = m.content %}{% set thought = '' %}
{%- if '</think>' in said %}
{%- set thought = said.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{%- if loop.index0 > ns.last and (loop.last or thought) %}
{{- '<|im_start|>assistant\\n<think>\\n' ~ thought.strip('\\n') ~ '\\n</think>\\n\\n' ~ said.lstrip('\\n') }}
{%- else %}{{ '<|im_start|>assistant\\n' ~ said }}{% endif %}
{%- for call in m.tool_calls or [] %}{{ '\\n<tool_call>\\n' ~ (call | tojson) ~ '\\n</tool_call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# The generation prompt opens a thought that the rendering of an answer does not have.
OPENS_THOUGHT = CHATML.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>\\n' }}")

ZEPHYR = """\
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ eos_token ~ '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

STRIPPING = """\
{%- for m in messages %}{{ '### ' ~ (m.role | capitalize) ~ ':\\n' ~ (m.content | trim) ~ '\\n\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"""

NO_GENERATION_PROMPT = """\
{%- for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ eos_token ~ '\\n' }}{% endfor %}"""

TEMPLATES = {
    "chatml": CHATML,
    "chatml_marked": CHATML_MARKED,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
    "llama2": LLAMA2,
    "gemma": GEMMA,
    "phi3": PHI3,
    "qwen3": QWEN3,
    "opens_thought": OPENS_THOUGHT,
    "zephyr": ZEPHYR,
    "stripping": STRIPPING,
    "no_generation_prompt": NO_GENERATION_PROMPT,
    "plain": None,
}
CONTROL = ["<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>", "<turn>", "<turn/>", "<|user|>", "<|system|>"]


def byte_level(template: str | None = None, *, adds_bos: bool = False, pad_is_eos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges that cross words, so that seams matter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3}
    vocabulary.update({letter: index for index, letter in enumerate(alphabet, len(vocabulary))})
    merges = [("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("Ċ", "Ċ"), ("e", "l"), ("l", "o"), ("Ġ", "Ġ"), (".", "Ċ"), ("a", "n")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    return _finished(backend, template, "</s>" if pad_is_eos else "<pad>")


def sentence_piece(template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer in Llama's manner: a space is put in front of whatever is encoded, bytes are the last resort, <s> is added."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'<>|/[]#-_{}\"()"]
    names = ["<s>", "</s>", "<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {name: index for index, name in enumerate(names)}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("l", "l"), ("▁", "▁"), ("▁", "h")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    return _finished(backend, template, "<pad>")


def bert_like() -> PreTrainedTokenizerFast:
    """Words of one letter with [CLS] and [SEP] around them."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", model_max_length=1000
    )


def t5_like() -> PreTrainedTokenizerFast:
    """Words of one letter with </s> behind them."""
    names = ["<pad>", "</s>", "<unk>", *"abcdefgh"]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def _finished(backend: Tokenizer, template: str | None, pad: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad, chat_template=template
    )
    extra = [AddedToken(text, special=True, normalized=False) for text in CONTROL]
    # As in Phi-3: the token takes the line break behind it along.
    extra += [AddedToken(text, special=True, normalized=False, rstrip=True) for text in ("<|assistant|>", "<|end|>")]
    # As in Qwen3: thoughts and calls are written with added tokens that are not special.
    extra += [AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>", "<tool_call>", "</tool_call>")]
    tokenizer.add_tokens(extra)
    return tokenizer


@pytest.fixture
def tiny() -> SimpleNamespace:
    return SimpleNamespace(
        byte_level=byte_level, sentence_piece=sentence_piece, bert_like=bert_like, t5_like=t5_like, templates=TEMPLATES
    )
