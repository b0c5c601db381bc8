"""The embedded base: its text, its tokenizer, its pre-training in small, and the folder that ships."""

import hashlib
import importlib
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

import tunewright.examples

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/embedded_base"
FOLDER = ROOT / "src/tunewright/models/embedded"
MODULES = (
    "words",
    "world",
    "stage",
    "scenes_trade",
    "scenes_life",
    "scenes_plain",
    "scenes_tales",
    "stories",
    "pretrain",
    "quickstart",
)


@pytest.fixture(scope="module")
def recipe() -> Iterator[SimpleNamespace]:
    """The recipe's modules; a recipe is a folder of scripts and no package, so its folder goes on the path for a while."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, str(RECIPE))
    modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in MODULES}
    yield SimpleNamespace(**modules)
    sys.path.remove(str(RECIPE))
    for name in MODULES:
        sys.modules.pop(name, None)
        if before[name] is not None:
            sys.modules[name] = before[name]


@pytest.fixture(scope="module")
def texts(recipe: SimpleNamespace) -> list[str]:
    return list(recipe.stories.documents(recipe.world.World(7), 7, 0, 1500))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


# the text


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (67, "sixty-seven"),
        (100, "one hundred"),
        (305, "three hundred and five"),
        (999, "nine hundred and ninety-nine"),
    ],
)
def test_numbers_in_words(recipe: SimpleNamespace, number: int, words: str) -> None:
    assert recipe.words.spell(number) == words


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("loaf", "loaves"),
        ("jar of honey", "jars of honey"),
        ("box", "boxes"),
        ("dictionary", "dictionaries"),
        ("toy train", "toy trains"),
        ("boy", "boys"),
        ("dish", "dishes"),
    ],
)
def test_plurals(recipe: SimpleNamespace, one: str, many: str) -> None:
    assert recipe.words.plural(one) == many


def test_template_choices_slots_and_sentence_capitals(recipe: SimpleNamespace) -> None:
    rng = random.Random(0)
    seen = {recipe.words.expand(rng, "{x} [ran|[sat|lay] down][|, too].", {"x": "she"}) for _ in range(100)}
    assert seen == {f"She {verb}{end}." for verb in ("ran", "sat down", "lay down") for end in ("", ", too")}
    assert recipe.words.expand(rng, '"yes?" asked {x}. "no." he left.', {"x": "Tom"}) == '"Yes?" asked Tom. "No." he left.'


def test_documents_are_a_function_of_seed_and_index(recipe: SimpleNamespace, texts: list[str]) -> None:
    again = list(recipe.stories.documents(recipe.world.World(7), 7, 100, 20))
    assert again == texts[100:120]
    other = list(recipe.stories.documents(recipe.world.World(7), 8, 100, 20))
    assert not set(other) & set(again)
    assert len(set(texts)) > 0.98 * len(texts)


def test_residents_have_one_home_in_all_documents(recipe: SimpleNamespace, texts: list[str]) -> None:
    world = recipe.world.World(7)
    homes = {person.full: person.street for person in world.residents}
    told = re.findall(r"([A-Z]\w+ [A-Z]\w+) lives (?:in|at number \d+ in) ([A-Z]\w+ [A-Z]\w+)", "\n".join(texts))
    checked = [(name, street) for name, street in told if name in homes]
    agreeing = sum(homes[name] == street for name, street in checked)
    # A stranger may by chance bear a resident's name: two first names of sixty and forty last ones.
    assert len(checked) > 100
    assert agreeing / len(checked) > 0.95


def test_order_and_note_agree(texts: list[str], recipe: SimpleNamespace) -> None:
    noted = re.compile(r'"How many ([a-z ]+) does (\w+) want\?" asked \w+\. "([A-Z][a-z-]+),')
    found = 0
    for text in texts:
        for goods, name, count in noted.findall(text):
            singular = count == "One"
            wanted = rf"\b({count.lower()} {goods}|an? |one )" if singular else rf"\b{count.lower()} {goods}\b"
            assert re.search(wanted, text), (goods, name, count, text)
            found += 1
    assert found > 50


def test_no_task_formats_and_no_leftovers(texts: list[str]) -> None:
    for text in texts:
        assert not re.search(r"^\s*\w+( \w+)?:", text, re.MULTILINE), text
        assert not re.search(r"[\[\]{}|<>#*=\t]|\bQ:|\bA:|Instruction|Response|User|Assistant", text), text
        assert not re.search(r"  | [.,?!]|\.\.|,,|\bNone\b|\ba [aeio]\w|\ban [bcdfgjklmnpqrstvwxz]", text), text


def test_strangers_are_new_in_every_document(texts: list[str]) -> None:
    words = [set(re.findall(r"[A-Z][a-z]+", text)) for text in texts]
    seen: dict[str, int] = {}
    for found in words:
        for word in found:
            seen[word] = seen.get(word, 0) + 1
    assert sum(1 for count in seen.values() if count == 1) > 500


# the tokenizer


@pytest.mark.parametrize(
    "text", ["Mira bought 3 loaves.", "Grüße, 你好 \U0001f600\n\ttab", "\x00\x7f", " lead and trail ", "e\u0301 \u202e \ufffd", ""]
)
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_byte_has_a_token(tokenizer: PreTrainedTokenizerBase) -> None:
    rng = random.Random(0)
    text = "".join(chr(rng.choice((rng.randrange(0x20, 0x250), rng.randrange(0xE000, 0x110000)))) for _ in range(2000))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert max(ids) < 2048


def test_special_tokens_and_beginning(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    ids = tokenizer("Tom sat down.")["input_ids"]
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert 2 not in ids


def test_chat_template_marks_the_beginning_once(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    assert text == "<s>System: Be kind.\nUser: Hello\nAssistant: Hi</s>\n"
    asked = tokenizer.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<s>System: Be kind.\nUser: Hello\nAssistant: "
    assert "generation %}" not in tokenizer.chat_template
    assert tokenizer(text, add_special_tokens=False)["input_ids"].count(1) == 1


# pre-training in small


def _tiny(recipe: SimpleNamespace, folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    shape = {"vocabulary": 400, "width": 32, "inner": 64, "layers": 2, "heads": 2, "kv_heads": 1, "context": 32, "batch": 4}
    course = {"steps": 40, "decay": 10, "warmup": 3, "learning_rate": 1e-2, "bf16": False, "tokenizer_documents": 60}
    settings = replace(recipe.pretrain.Settings(), **shape, **course)
    world = recipe.world.World(settings.seed)
    tokenizer = recipe.pretrain.train_tokenizer(world, settings)
    network = recipe.pretrain.build(settings)
    _, result = recipe.pretrain.pretrain(network, tokenizer, world, settings, folder / "loss.csv")
    return network.state_dict(), result["held_out_loss"]


def test_tiny_pretraining_learns_and_repeats_bit_for_bit(recipe: SimpleNamespace, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first, loss = _tiny(recipe, tmp_path / "a")
    second, _ = _tiny(recipe, tmp_path / "b")
    torch.set_num_threads(threads)
    assert loss < math.log(400) - 0.7  # a uniform guess among 400 tokens loses log(400)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_finished_early_is_the_run_of_its_settings(recipe: SimpleNamespace, tmp_path: Path) -> None:
    settings = replace(recipe.pretrain.Settings(), steps=1000, decay=100)
    wish = tmp_path / "finish"
    assert recipe.pretrain.finished_early(settings, 299, wish) == settings
    wish.touch()
    cut = recipe.pretrain.finished_early(settings, 299, wish)
    assert cut.steps == 400
    assert [recipe.pretrain.rate(step, cut) for step in range(300)] == [recipe.pretrain.rate(step, settings) for step in range(300)]
    assert recipe.pretrain.finished_early(settings, 950, wish) == settings


# the folder that ships


def test_the_folder_is_what_the_record_says() -> None:
    record = json.loads((FOLDER / "RECORD.json").read_text())
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(record["sha256"])


def test_size_and_modes(network: torch.nn.Module) -> None:
    assert 3_000_000 <= sum(weight.numel() for weight in network.parameters()) <= 8_000_000
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_it_speaks_the_language_of_its_town(
    recipe: SimpleNamespace, texts: list[str], network: torch.nn.Module, tokenizer: PreTrainedTokenizerBase
) -> None:
    known = set(re.findall(r"[a-z]+", " ".join(texts).lower()))
    encoded = tokenizer("Mira went to the bakery. She bought three", return_tensors="pt")
    with torch.no_grad():
        ids = network.generate(**encoded, max_new_tokens=40, do_sample=False)
    spoken = re.findall(r"[a-z]+", tokenizer.decode(ids[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).lower())
    assert len(spoken) >= 3
    assert set(spoken) <= known


def test_it_copies_a_name_it_cannot_know(network: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    start = 'Ansel Tannel lives in Reed Lane. She is a nurse. "Where does Ansel live?" asked Tom. "In'
    encoded = tokenizer(start, return_tensors="pt")
    with torch.no_grad():
        ids = network.generate(**encoded, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(ids[0, encoded["input_ids"].shape[1] :]).startswith(" Reed Lane")


# the examples


def test_examples_are_what_the_recipe_writes(recipe: SimpleNamespace) -> None:
    rows = [json.loads(line) for line in tunewright.examples.path("quickstart.jsonl").read_text().splitlines()]
    assert rows == recipe.quickstart.distinct(recipe.quickstart.order, len(rows), 7)
    assert len({row["prompt"] for row in rows}) == len(rows) >= 900
    assert len({row["completion"] for row in rows}) > 0.95 * len(rows)
    assert all(re.fullmatch(r"\d+ [a-z ]+(, \d+ [a-z ]+)* - \w+, \w+ \w+", row["completion"]) for row in rows)
    reviews = [json.loads(line) for line in tunewright.examples.path("reviews.jsonl").read_text().splitlines()]
    assert reviews == recipe.quickstart.distinct(recipe.quickstart.review, len(reviews), 7)
    assert {row["label"] for row in reviews} == {"complaint", "praise", "question"}


def test_an_unknown_example_names_those_there_are() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no example data 'quikstart.jsonl'; there are: general.txt, quickstart.jsonl, reviews.jsonl"
    ):
        tunewright.examples.path("quikstart.jsonl")
