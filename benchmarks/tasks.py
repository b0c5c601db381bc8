"""Tasks with a head on an encoder, by us and by transformers' Trainer: `python benchmarks/tasks.py xquad FOLDER [--base minilm]`.

Same rows, base, learning rate, schedule, batch, epochs and seed; both keep the epoch with the smallest validation loss, and both
are measured with the same metrics on the same test rows. The head is each system's own. FOLDER holds the data:

xquad: `parallel.jsonl` and `qa_en.jsonl` of XQuAD's English part; questions are divided by paragraph.
sentence_polarity: `train.jsonl`, `validation.jsonl`, `test.jsonl` with `text` and `label` (Pang and Lee 2005).
gsm8k_quantities: `train.jsonl` and `test.jsonl` of GSM8K. Tags follow from a rule (`tags_of`), so that they are known for every
    sentence: both systems learn the same rule, and how well says nothing about language at large.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Rows = list[dict[str, Any]]
Splits = dict[str, Rows]
LONGEST = 30  # tokens of an answer, as in the objective
OVERLAP = 128  # tokens that windows of a long context share, as in the objective
SPLITS = ("train", "validation", "test")


# ---- rows ---------------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def xquad(one: argparse.Namespace) -> Splits:
    """Questions with their contexts: of ten paragraphs in a row six are for training, one for validation, three for the test."""
    contexts = {row["id"]: row["en"] for row in _lines(one.folder / "parallel.jsonl") if row["kind"] == "paragraph"}
    place = {name: number % 10 for number, name in enumerate(contexts)}
    found: Splits = {name: [] for name in SPLITS}
    for row in _lines(one.folder / "qa_en.jsonl"):
        split = "train" if place[row["paragraph"]] < 6 else "validation" if place[row["paragraph"]] == 6 else "test"
        context, start = around(contexts[row["paragraph"]], row["answer_start"], row["answers"][0], one.words, row["id"])
        answers = [{"text": row["answers"][0], "answer_start": start}]
        found[split].append({"question": row["question"], "context": context, "answers": answers})
    return {**found, "train": found["train"][: one.rows]}


def around(context: str, start: int, answer: str, count: int, seed: str) -> tuple[str, int]:
    """`count` words of a context that hold the answer at a place drawn by `seed`, and where it begins in them; 0: all words."""
    words = [one.span() for one in re.finditer(r"\S+", context)]
    held = [place for place, (begin, end) in enumerate(words) if end > start and begin < start + len(answer)]
    if not count or len(words) <= count:
        return context, start
    earliest = max(0, held[-1] + 1 - count)
    latest = min(held[0], len(words) - count)
    first = random.Random(seed).randint(min(earliest, latest), max(earliest, latest))
    last = max(first + count - 1, held[-1])  # of an answer that is longer
    return context[words[first][0] : words[last][1]], start - words[first][0]


def sentence_polarity(one: argparse.Namespace) -> Splits:
    """Sentences of film reviews, for or against; of validation rows a quarter of those for training."""
    named = {
        split: [{"text": row["text"], "label": ("against", "for")[row["label"]]} for row in _lines(one.folder / f"{split}.jsonl")]
        for split in SPLITS
    }
    return {**named, "train": named["train"][: one.rows], "validation": named["validation"][: one.rows // 4]}


WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\w+(?:['’]\w+)?|[^\w\s]")
NUMBER = re.compile(
    r"\d[\d,.]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|hundred"
)
UNITS = {
    "MONEY": re.compile(r"dollars?|cents?"),
    "PERCENT": re.compile(r"%|percent"),
    "DURATION": re.compile(r"(second|minute|hour|day|week|month|year)s?"),
}


def tags_of(words: Sequence[str]) -> list[str]:
    """Quantities by rule: `$ 5` and `5 dollars` are MONEY, `5 %` is PERCENT, `5 hours` is DURATION, any other 5 is NUMBER."""
    tags = ["O"] * len(words)
    for place, word in enumerate(words):
        if not NUMBER.fullmatch(word.lower()):
            continue
        if place and words[place - 1] == "$":
            tags[place - 1 : place + 1] = "B-MONEY", "I-MONEY"
            continue
        behind = words[place + 1].lower() if place + 1 < len(words) else ""
        kind = next((name for name, unit in UNITS.items() if unit.fullmatch(behind)), None)
        tags[place] = f"B-{kind or 'NUMBER'}"
        if kind is not None:
            tags[place + 1] = f"I-{kind}"
    return tags


def gsm8k_quantities(one: argparse.Namespace) -> Splits:
    """Sentences of arithmetic problems that hold a quantity, each once, with their tags."""
    seen: dict[str, None] = {}
    parts = {}
    for split in ("train", "test"):
        rows, parts[split] = _lines(one.folder / f"{split}.jsonl"), []
        for sentence in (found for row in rows for found in re.split(r"(?<=[.?!])\s+", row["question"])):
            words = WORD.findall(sentence)
            if sentence not in seen and len(words) <= 60 and set(tags_of(words)) != {"O"}:
                seen[sentence] = None
                parts[split].append({"tokens": words, "tags": tags_of(words)})
    train, held = parts["train"], one.rows // 4
    return {"train": train[: one.rows], "validation": train[one.rows : one.rows + held], "test": parts["test"][: 2 * held]}


# ---- ours ---------------------------------------------------------------------------------------------------------------------


def ours(asked: argparse.Namespace, task: Task, splits: Splits, place: Path, seed: int) -> tuple[list[str], list[str]]:
    """One run of Tunewright: what it answers to the test rows, and what is right."""
    from tunewright.core.configuration import build
    from tunewright.finetune import Run, finetune

    place.mkdir()
    for name, rows in splits.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    kept = dict.fromkeys(("exact_duplicates", "leakage"), "report")
    data = {name: str(place / f"{name}.jsonl") for name in splits} | {"near_duplicates": 0, "cleaning": kept}
    rates = dict.fromkeys(("learning_rate", "head_learning_rate"), asked.rate)  # the Trainer has one for both
    training = {"epochs": asked.epochs, "batch_size": asked.batch, "patience": 100, **rates}
    settings = {
        "data": data,
        "base": asked.base,
        "method": {"name": "lora", "rank": 16} if asked.method == "lora" else asked.method,
        "objective": {"name": task.objective, "head_dropout": task.dropout},
        "training": training | {"precision": "float32"},
        "evaluation": {"metrics": task.metrics, "validation_rows": 10**6, "written": 10**6},
        "folder": place / "runs",
        "seed": seed,
        "threads": asked.threads,
    }
    folder = finetune(build(Run, settings)).folder
    found = _lines(folder / "predictions" / "test.jsonl")
    if len(found) != len(splits["test"]):
        raise ValueError(f"{len(splits['test']) - len(found)} test rows were not answered")
    return [row["tuned"] for row in found], [row["reference"] for row in found]


# ---- theirs -------------------------------------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """What transformers needs for one task.

    Args:
        auto: the class that loads the network; kind: PEFT's word for the task.
        encode: rows to features, given the tokenizer, the labels and the base's context.
        read: outputs for the test rows, and their features, to answers; given the rows and the labels too.
    """

    auto: str
    kind: str
    encode: Callable[[Rows, Any, list[str], int], Rows]
    read: Callable[[Any, Rows, Rows, list[str]], list[str]]


def theirs(asked: argparse.Namespace, task: Task, splits: Splits, place: Path, seed: int) -> list[str]:
    """The same with transformers' Trainer (and PEFT for LoRA): what it answers to the test rows."""
    import transformers
    from datasets import Dataset
    from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding, Trainer, set_seed

    from tunewright.models.loading import folder_of, resolve

    set_seed(seed)
    base = folder_of(resolve(asked.base))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    labels = task.labels(splits["train"])
    network = _network(asked, task.peer, base, len(labels))
    features = {
        name: task.peer.encode(rows, tokenizer, labels, network.config.max_position_embeddings) for name, rows in splits.items()
    }
    collator = DataCollatorForTokenClassification if task.peer.kind == "TOKEN_CLS" else DataCollatorWithPadding
    trainer = Trainer(
        model=network,
        args=_settings(asked, len(features["train"]), place, seed),
        train_dataset=Dataset.from_list(_shown(features["train"])),
        eval_dataset=Dataset.from_list(_shown(features["validation"])),
        data_collator=collator(tokenizer),
    )
    trainer.train()
    outputs = trainer.predict(Dataset.from_list(_shown(features["test"]))).predictions
    return task.peer.read(outputs, features["test"], splits["test"], labels)


def _network(asked: argparse.Namespace, peer: Peer, base: Path, labels: int) -> Any:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    many = {} if peer.kind == "QUESTION_ANS" else {"num_labels": labels}
    network = getattr(transformers, peer.auto).from_pretrained(base, dtype=torch.float32, **many)
    if asked.method == "lora":
        linear = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
        settings = LoraConfig(task_type=peer.kind, r=16, lora_alpha=32, lora_dropout=0.0, target_modules=linear)
        return get_peft_model(network, settings)
    if asked.method == "head":
        network.base_model.requires_grad_(False)
    return network


def _settings(asked: argparse.Namespace, count: int, place: Path, seed: int) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(place),
        per_device_train_batch_size=asked.batch,
        per_device_eval_batch_size=32,
        num_train_epochs=asked.epochs,
        learning_rate=asked.rate,
        lr_scheduler_type="linear",
        warmup_steps=round(0.05 * asked.epochs * math.ceil(count / asked.batch)),
        max_grad_norm=1.0,
        weight_decay=0.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        seed=seed,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_steps=10**6,
    )


def _shown(features: Rows) -> Rows:
    """Features without what only reading their outputs needs."""
    return [{name: value for name, value in one.items() if not name.startswith("_")} for one in features]


def _texts(rows: Rows, tokenizer: Any, labels: list[str], context: int) -> Rows:
    encoded = [tokenizer(row["text"], truncation=True, max_length=context) for row in rows]
    return [{**one, "labels": labels.index(row["label"])} for one, row in zip(encoded, rows, strict=True)]


def _named(outputs: Any, features: Rows, rows: Rows, labels: list[str]) -> list[str]:
    return [labels[index] for index in outputs.argmax(1)]


def _words(rows: Rows, tokenizer: Any, labels: list[str], context: int) -> Rows:
    """The tag of a word stands at its first piece, as in transformers' own example."""
    found = []
    for row in rows:
        one = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=context)
        owners = one.word_ids()
        firsts = [owner is not None and owner not in owners[:index] for index, owner in enumerate(owners)]
        tags = [labels.index(row["tags"][owner]) if first else -100 for owner, first in zip(owners, firsts, strict=True)]
        found.append({**one, "labels": tags})
    return found


def _tagged(outputs: Any, features: Rows, rows: Rows, labels: list[str]) -> list[str]:
    best = outputs.argmax(2)
    read = []
    for place, (one, row) in enumerate(zip(features, rows, strict=True)):
        tags = [labels[best[place][index]] for index, tag in enumerate(one["labels"]) if tag != -100]
        read.append(" ".join([*tags, *["O"] * (len(row["tokens"]) - len(tags))]))  # of a sentence that was cut
    return read


def _windows(rows: Rows, tokenizer: Any, labels: list[str], context: int) -> Rows:
    """A question with its context in windows; one that does not hold the whole answer points to its first token."""
    found = []
    for number, row in enumerate(rows):
        many = tokenizer(
            row["question"],
            row["context"],
            truncation="only_second",
            max_length=context,
            stride=OVERLAP,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        answer = row["answers"][0]
        begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        for index, places in enumerate(many["offset_mapping"]):
            inside = [at for at, owner in enumerate(many.sequence_ids(index)) if owner == 1]
            held = [at for at in inside if places[at][0] < end and places[at][1] > begin]
            whole = held and places[held[0]][0] <= begin and places[held[-1]][1] >= end
            one = {name: many[name][index] for name in ("input_ids", "attention_mask", "token_type_ids") if name in many}
            ends = {"start_positions": held[0], "end_positions": held[-1]} if whole else {"start_positions": 0, "end_positions": 0}
            found.append({**one, **ends, "_row": number, "_inside": inside, "_places": places})
    return found


def _spans(outputs: Any, features: Rows, rows: Rows, labels: list[str]) -> list[str]:
    """For each row the span with the largest sum of both logits over all its windows."""
    import numpy as np

    best: dict[int, tuple[float, str]] = {}
    for one, starts, ends in zip(features, *outputs, strict=True):
        inside, places = one["_inside"], one["_places"]
        sums = starts[inside][:, None] + ends[inside][None, :]
        sums = np.where(np.tril(np.triu(np.ones_like(sums)), LONGEST - 1) > 0, sums, -np.inf)
        first, last = np.unravel_index(int(sums.argmax()), sums.shape)
        text = rows[one["_row"]]["context"][places[inside[first]][0] : places[inside[last]][1]]
        if one["_row"] not in best or sums[first, last] > best[one["_row"]][0]:
            best[one["_row"]] = (float(sums[first, last]), text.strip())
    return [best[number][1] for number in range(len(rows))]


# ---- both ---------------------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """One task.

    Args:
        rows: the splits, from the folder and the numbers on the command line.
        objective, metrics: ours; dropout: in front of the head, as transformers' network has it.
        labels: from the training rows, in order.
    """

    rows: Callable[[argparse.Namespace], Splits]
    objective: str
    metrics: tuple[str, ...]
    dropout: float
    labels: Callable[[Rows], list[str]]
    peer: Peer


TASKS = {
    "xquad": Task(
        xquad,
        "question_answering",
        ("squad_exact_match", "token_f1"),
        0.0,
        lambda rows: [],
        Peer("AutoModelForQuestionAnswering", "QUESTION_ANS", _windows, _spans),
    ),
    "sentence_polarity": Task(
        sentence_polarity,
        "classification",
        ("accuracy", "macro_f1"),
        0.1,
        lambda rows: sorted({row["label"] for row in rows}),
        Peer("AutoModelForSequenceClassification", "SEQ_CLS", _texts, _named),
    ),
    "gsm8k_quantities": Task(
        gsm8k_quantities,
        "token_classification",
        ("entity_f1", "token_accuracy"),
        0.1,
        lambda rows: sorted({tag for row in rows for tag in row["tags"]}),
        Peer("AutoModelForTokenClassification", "TOKEN_CLS", _words, _tagged),
    ),
}


def measured(task: Task, own: list[str], peer: list[str], wanted: list[str]) -> dict[str, Any]:
    """Both systems on the same rows: each metric with its interval, and the difference with its own."""
    from tunewright.metrics import room
    from tunewright.metrics.statistics.intervals import score
    from tunewright.metrics.statistics.paired import compare

    found: dict[str, dict[str, Any]] = {"tunewright": {}, "trainer": {}, "difference": {}}
    for name in task.metrics:
        metric = room.make(name)
        for system, answers in (("tunewright", own), ("trainer", peer)):
            found[system][name] = _rounded(score(metric, answers, wanted)._asdict())
        found["difference"][name] = _rounded(compare(metric, peer, own, wanted)._asdict())
    return found


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("folder", type=Path, help="where the data are")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--method", choices=("full", "lora", "head"), default="full")
    parser.add_argument("--rows", type=int, default=2000, help="most training rows")
    parser.add_argument("--words", type=int, default=0, help="of xquad's contexts, around the answer; 0: whole paragraphs")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=1, help="train so often, with seeds 0, 1, ...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Train both with every seed and print what they reach; what is there is written after each."""
    import torch

    from tunewright.core.surroundings import machine, versions

    one = asked()
    torch.set_num_threads(one.threads)
    task = TASKS[one.task]
    splits = task.rows(one)
    settings = {name: getattr(one, name) for name in ("method", "epochs", "batch", "rate", "words", "threads")}
    result: dict[str, Any] = {"task": one.task, "base": one.base, "settings": settings}
    result |= {"rows": {name: len(rows) for name, rows in splits.items()}, "runs": []}
    result |= {"machine": machine(), "versions": versions()}
    for seed in range(one.seeds):
        with tempfile.TemporaryDirectory() as place:
            own, wanted = ours(one, task, splits, Path(place) / "ours", seed)
            peer = theirs(one, task, splits, Path(place) / "theirs", seed)
        found = measured(task, own, peer, wanted)
        result["runs"].append({"seed": seed, **found})
        for name in task.metrics:
            mine, other, apart = (found[system][name] for system in ("tunewright", "trainer", "difference"))
            shown = "  ".join(f"{x['value']:6.1%} [{x['low']:.1%}, {x['high']:.1%}]" for x in (mine, other, apart))
            print(f"{one.task} seed {seed} {name:18} {shown}", flush=True)
        if one.out:
            one.out.parent.mkdir(parents=True, exist_ok=True)
            one.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
