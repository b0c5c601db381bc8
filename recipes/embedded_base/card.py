"""The model card: what the base is, what it is not, and continuations as they came out of the saved folder."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

STARTS = (
    "Mira went to the bakery. She bought three",
    "On Friday Tom lost his red scarf. He looked",
    '"Where do you live?" asked Anna. "',
    "Skrelbon Vatch lives in Plorrin Lane. Skrelbon has a black goat called Dunfrit. The name of the goat is",
    "Edgar needed eleven candles and a kettle, so he went to",
    "It was a cold evening. The wind",
)

_TEXT = """---
license: apache-2.0
language: en
---
# The embedded base

A decoder language model of {parameters:,} parameters (Llama architecture, {layers} layers of width {width}, {heads} attention
heads over {kv_heads} key-value heads, tied embeddings, context {context}, byte-level BPE of {vocabulary} tokens, weights stored
in bfloat16).
It ships with Tunewright so that every verb, test and tutorial works at once, with no network and no account.

**Where it comes from.** It was pre-trained from nothing on {tokens:,} tokens of English that our own generator writes
about a small made-up town (`recipes/embedded_base/`): people, shops, prices, orders, lost things, letters, sums. Half of the
documents are about strangers with invented names, so it had to learn to look back and copy. No text, weight or name list from
elsewhere was used. One command makes it again: `python recipes/embedded_base/make.py`. `RECORD.json` holds the seed, the settings,
the loss ({train_loss:.3f} on the last text trained on, {held_out_loss:.3f} on text never trained on) and the hashes.

**What it is for.** Trying, testing and teaching fine-tuning in seconds on a CPU.

**What it is not for.** It knows nothing of the world outside its town, follows no instruction, and has read no question-and-answer
format and no chat. Its numbers are often wrong, its stories lose their thread, and it repeats itself.
Use a real base for real work.

The chat template writes plain role words (`System:`, `User:`, `Assistant:`), which the base has never met: a chat format is
something for tuning to teach. The template writes `<s>` itself; tokenise what it renders with `add_special_tokens=False`.

## Continuations

Greedy, and sampled (temperature 0.8, seed 0), 48 tokens each, chosen by nobody: the beginnings are fixed in
`recipes/embedded_base/card.py` and this page is written by the program.

{samples}
"""


def continuation(network: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, start: str, sample: bool) -> str:
    """The next 48 tokens after `start`."""
    torch.manual_seed(0)
    encoded = tokenizer(start, return_tensors="pt")
    choice = {"do_sample": True, "temperature": 0.8, "top_k": 0} if sample else {"do_sample": False}
    with torch.no_grad():
        ids = network.generate(**encoded, max_new_tokens=48, pad_token_id=tokenizer.pad_token_id, **choice)
    return tokenizer.decode(ids[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def write_card(folder: Path, facts: dict[str, object]) -> None:
    """Write MODEL_CARD.md with samples of the model in `folder`."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    blocks = []
    for start in STARTS:
        greedy, sampled = (continuation(network, tokenizer, start, sample) for sample in (False, True))
        lines = [f"**{start}**", "", f"greedy:{greedy if greedy[:1] == ' ' else ' ' + greedy}", "", f"sampled: {sampled.strip()}"]
        blocks.append("\n".join("> " + line.replace("\n", " ") for line in lines))
    path = folder / "MODEL_CARD.md"
    path.write_text(_TEXT.format(samples="\n\n".join(blocks), **facts))
    path.chmod(0o644)
