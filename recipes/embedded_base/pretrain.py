"""Pre-training in plain torch: a tokenizer, packed documents, AdamW with warm-up, a level rate and a decay.

Everything is a function of the settings: documents by index, weights by seed, batches in order. The same settings on
the same machine with the same number of threads give the same bits.
"""

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from stories import documents
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from world import World

SPECIAL = ("<pad>", "<s>", "</s>")
# Plain role words: the base has met none of them, so a chat format is something that it has to learn by tuning.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}"
    "{% elif message['role'] == 'system' %}{{ 'System: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'User: ' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


@dataclass(frozen=True)
class Settings:
    """One pre-training: shape, data and schedule.

    The rate warms up, stays level and falls during the last `decay` steps. Until then the tokens are cut into rows of
    half the context, which is a quarter faster; the decaying steps read whole rows and so learn the far positions.
    Since nothing before the decay depends on `steps`, a run can be finished early and is still the run that its
    final settings describe.
    """

    seed: int = 7
    vocabulary: int = 2048
    width: int = 256
    inner: int = 704
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 512
    batch: int = 4
    steps: int = 4550
    decay: int = 700
    warmup: int = 200
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    bf16: bool = True
    tokenizer_documents: int = 12_000


LONG = 5_000_000  # the steps of the decay read documents from this index on
HELD_OUT = 10_000_000  # documents from this index on are never trained on


def train_tokenizer(world: World, settings: Settings) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of our own text; every byte is in the alphabet, so nothing is ever unknown."""
    inner = Tokenizer(models.BPE())
    # Single digits: numbers are then spelt, and copied, one digit at a time.
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(documents(world, settings.seed, 0, settings.tokenizer_documents), trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=settings.context,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build(settings: Settings) -> LlamaForCausalLM:
    """A freshly initialised decoder."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings.vocabulary,
            hidden_size=settings.width,
            intermediate_size=settings.inner,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.kv_heads,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            # Measured on two cores: 15.6k tokens a second; 13.0k with the fused kernel, whose backward is slow.
            attn_implementation="eager",
        )
    )


def batches(world: World, tokenizer: PreTrainedTokenizerFast, settings: Settings, first: int, cut: int = 1) -> Iterator[Tensor]:
    """Batches ``[batch * cut, context / cut + 1]`` of packed documents, each written ``<s> text </s>``, without end."""
    rows, width = settings.batch * cut, settings.context // cut + 1
    size = rows * width
    bos, eos = SPECIAL.index("<s>"), SPECIAL.index("</s>")
    held: list[int] = []
    while True:
        texts = list(documents(world, settings.seed, first, 256))
        first += len(texts)
        for one in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            held += [bos, *one, eos]
        while len(held) >= size:
            yield torch.tensor(held[:size]).view(rows, width)
            del held[:size]


def loss_of(network: LlamaForCausalLM, batch_BT: Tensor, settings: Settings) -> Tensor:
    """Mean cross-entropy of the next token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        logits_BTV = network(input_ids=batch_BT[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits_BTV.float().flatten(0, 1), batch_BT[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(network: LlamaForCausalLM, held: list[Tensor], settings: Settings) -> float:
    """Mean loss on text that is never trained on."""
    network.eval()
    mean = sum(float(loss_of(network, batch, settings)) for batch in held) / len(held)
    network.train()
    return mean


def rate(step: int, settings: Settings) -> float:
    """Linear warm-up, a level stretch, and a half cosine down to a fiftieth during the last `decay` steps."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = max(0, step - (settings.steps - settings.decay)) / settings.decay
    return settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _optimizer(network: LlamaForCausalLM, settings: Settings) -> torch.optim.AdamW:
    matrices = [weight for weight in network.parameters() if weight.dim() > 1]
    vectors = [weight for weight in network.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def finished_early(settings: Settings, step: int, wish: Path) -> Settings:
    """The settings, cut so that the decay begins after `step`, once the file `wish` is there."""
    if not wish.exists() or step + 1 + settings.decay >= settings.steps:
        return settings
    return replace(settings, steps=step + 1 + settings.decay)


def pretrain(
    network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, settings: Settings, log: Path
) -> tuple[Settings, dict[str, float]]:
    """Train, and return the settings that describe the run with its final numbers.

    The loss curve goes to `log` (CSV), the weights beside it every 200 steps. A file named `finish` beside the log
    makes the decay begin at once.
    """
    level = batches(world, tokenizer, settings, first=settings.tokenizer_documents, cut=2)
    whole = batches(world, tokenizer, settings, first=LONG)
    held_source = batches(world, tokenizer, settings, first=HELD_OUT)
    held = [next(held_source) for _ in range(8)]
    optimizer = _optimizer(network, settings)
    recent: list[float] = []
    start, step, measured = time.monotonic(), 0, math.nan
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", newline="") as stream:
        curve = csv.writer(stream)
        curve.writerow(["step", "tokens", "loss", "held_out_loss", "learning_rate", "seconds"])
        while step < settings.steps:
            for group in optimizer.param_groups:
                group["lr"] = rate(step, settings)
            loss = loss_of(network, next(level if step < settings.steps - settings.decay else whole), settings)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            recent = [*recent[-99:], loss.item()]
            step += 1
            if step % 50 and step != settings.steps:
                continue
            settings = finished_early(settings, step - 1, log.with_name("finish"))
            measured = math.nan
            if step % 200 == 0 or step == settings.steps:
                measured = held_out_loss(network, held, settings)
                torch.save(network.state_dict(), log.with_name("checkpoint.pt"))
            numbers = (sum(recent) / len(recent), measured, rate(step - 1, settings), time.monotonic() - start)
            curve.writerow([step, step * settings.batch * settings.context, *(f"{number:.5f}" for number in numbers)])
            stream.flush()
    tokens = settings.steps * settings.batch * settings.context
    minutes = (time.monotonic() - start) / 60
    return settings, {"tokens": tokens, "train_loss": sum(recent) / len(recent), "held_out_loss": measured, "minutes": minutes}
