"""Mixtures: shares that come out exactly, parts that stay apart, and what is said about both."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tunewright.core.configuration import as_yaml, build, parse_yaml
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.data.mixing import LEAK, Mixture, counts, in_turn
from tunewright.data.reading import DataConfig, Dataset, read, read_rows
from tunewright.data.rows import PromptRow, TextRow
from tunewright.data.templates.dressing import Prompting

WORDS = [a + b for a in ("mel", "tor", "sab", "kin", "ruf", "dal") for b in ("ona", "ique", "erus", "agl", "iv")]


def write(path: Path, values: list[dict]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def text_of(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=9))


def labelled(path: Path, count: int, seed: int = 0, labels: tuple[str, ...] = ("pos", "neg")) -> Path:
    draw = random.Random(seed)
    return write(path, [{"text": text_of(draw), "label": labels[i % len(labels)]} for i in range(count)])


def asked(path: Path, count: int, seed: int = 1) -> Path:
    draw = random.Random(seed)
    return write(path, [{"question": text_of(draw), "answer": f"answer {i}"} for i in range(count)])


@pytest.fixture
def parts(tmp_path: Path) -> list[dict]:
    return [
        {"name": "mood", "train": str(labelled(tmp_path / "mood.jsonl", 120)), "template": "sentiment"},
        {"name": "sums", "train": str(asked(tmp_path / "sums.jsonl", 30)), "template": "arithmetic"},
        {
            "name": "field",
            "train": str(labelled(tmp_path / "field.jsonl", 20, 7, ("sea", "land"))),
            "template": "topic",
            "held_out": True,
        },
    ]


def mixed(parts: list[dict], seed: int = 0, **settings: object) -> Dataset:
    return read(build(DataConfig, {"mixture": {"parts": parts, **settings}}), seed)


def tasks(rows) -> dict[str, int]:
    return dict(Counter(row.metadata["task"] for row in rows))


def mixture(shares: dict[str, float | None], **settings: object) -> Mixture:
    return build(Mixture, {"parts": [{"name": name, "train": "f", "share": share} for name, share in shares.items()], **settings})


@pytest.mark.parametrize("temperature", [1, 1.5, 2, 5, 1000])
def test_a_temperature_evens_sizes_out_and_the_sum_is_exact(temperature: float) -> None:
    sizes = {"a": 900, "b": 100, "c": 7}
    found = counts(mixture(dict.fromkeys(sizes), temperature=temperature), sizes)
    rates = {name: size ** (1 / temperature) for name, size in sizes.items()}
    assert sum(found.values()) == 1007
    for name in sizes:
        assert abs(found[name] - 1007 * rates[name] / sum(rates.values())) < 1
    if temperature == 1:
        assert found == sizes


def test_shares_that_are_given_are_met_exactly() -> None:
    sizes = {"a": 900, "b": 100, "c": 7}
    assert counts(mixture({"a": 0.5, "b": 0.25, "c": 0.25}, rows=400), sizes) == {"a": 200, "b": 100, "c": 100}
    draw = random.Random(0)
    for _ in range(50):
        shares = {name: draw.random() + 0.01 for name in sizes}
        found = counts(mixture(shares, rows=331), sizes)
        assert sum(found.values()) == 331
        assert all(abs(found[name] - 331 * share / sum(shares.values())) < 1 for name, share in shares.items())


def test_the_mixture_is_what_was_asked_for_and_every_part_says_so(parts: list[dict]) -> None:
    found = mixed(parts, temperature=2)
    assert tasks(found.train) == {"mood": 80, "sums": 40}  # 96 and 24 rows: sqrt gives two to one
    assert found.findings.parts["mood"]["left_out"] == 16
    assert found.findings.parts["sums"]["repeated"] == 16
    assert found.findings.parts["sums"]["share"] == pytest.approx(1 / 3)
    notes = "\n".join(found.findings.notes)
    assert "'sums' gives 40 training rows, 33.3 % of the mixture, 16 of them repeated (no row more than 2 times)" in notes
    assert "'field' is held out: never trained on, 20 test rows" in notes
    assert all(isinstance(row, PromptRow) for rows in found.splits().values() for row in rows)
    assert json.loads(json.dumps(found.findings.as_dict()))["parts"]["field"]["held_out"] is True
    often = Counter(row.where for row in found.train if row.metadata["task"] == "sums")
    assert set(often.values()) == {1, 2}
    twice = [row for row in found.train if often[row.where] == 2]
    assert len({(row.where, row.prompt) for row in twice}) == len(twice)


def test_what_is_held_out_is_tested_whole_and_stands_nowhere_else(parts: list[dict]) -> None:
    found = mixed(parts)
    assert tasks(found.test) == {"mood": 12, "sums": 3, "field": 20}
    assert "field" not in tasks(found.train) | tasks(found.validation)
    assert not any("field.jsonl" in row.where for row in [*found.train, *found.validation])


def test_examples_of_a_held_out_part_are_not_among_what_is_tested(parts: list[dict]) -> None:
    parts[2]["template"] = {"name": "topic", "shots": 2}
    found = mixed(parts)
    tested = [row for row in found.test if row.metadata["task"] == "field"]
    lines = Path(parts[2]["train"]).read_text().splitlines()
    texts = {f"{parts[2]['train']}:{number}": json.loads(line)["text"] for number, line in enumerate(lines, 1)}
    own = {row.where: texts[row.where] for row in tested}
    for row in tested:
        shown = [where for where, text in texts.items() if text in row.prompt]
        assert len(shown) == 3
        assert [where for where in shown if where in own] == [row.where]


def test_equal_seeds_are_equal_and_others_differ(parts: list[dict]) -> None:
    one, again, other = (mixed(parts, seed, temperature=2) for seed in (3, 3, 4))
    assert one.splits() == again.splits()
    assert one.train != other.train


def test_rows_of_all_parts_take_turns() -> None:
    rows = [[TextRow(text=f"{name}{i}") for i in range(count)] for name, count in (("a", 3), ("b", 1), ("c", 2))]
    assert [row.input_text() for row in in_turn(rows)] == ["a0", "b0", "c0", "a1", "c1", "a2"]


def test_a_cap_is_kept(parts: list[dict]) -> None:
    found = mixed([{**parts[0], "max_rows": 10}, parts[1], {**parts[2], "max_rows": 4}])
    assert tasks(found.train) == {"mood": 10, "sums": 24}
    assert tasks(found.test)["field"] == 4


def test_a_training_row_that_another_part_tests_is_dropped_and_said(parts: list[dict]) -> None:
    alike = [*parts, {"name": "again", "train": parts[0]["train"], "template": "sentiment", "held_out": True}]
    with pytest.raises(DataError, match="the part 'mood' is empty: all its training rows stand in the tests of other parts"):
        mixed(alike)
    alike[-1]["max_rows"] = 30
    found = mixed(alike)
    trained = {row.where for row in found.train if row.metadata["task"] == "mood"}
    assert not trained & {row.where for row in found.test}
    drops = [drop for drop in found.ledger if drop.kind == LEAK]
    assert 20 <= len(drops) == 96 - len(trained)
    assert "also stands in the test of 'again'" in drops[0].message
    assert found.findings.dropped[LEAK]["count"] == len(drops)


def test_the_same_texts_in_two_tasks_are_kept_and_said(parts: list[dict], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in Path(parts[0]["train"]).read_text().splitlines()]
    other = write(tmp_path / "other.jsonl", [{"text": line["text"], "label": "xy"[i % 2]} for i, line in enumerate(lines)])
    found = mixed([parts[0], {"name": "kind", "train": str(other), "template": "topic"}])
    assert len(found.ledger) == 0
    assert any("training rows of 'mood' have an input that stands in the test of 'kind'" in note for note in found.findings.notes)


@pytest.mark.parametrize("held_out", [False, True])
def test_an_empty_part_is_named(parts: list[dict], tmp_path: Path, held_out: bool) -> None:
    empty = write(tmp_path / "none.jsonl", [])
    with pytest.raises(DataError, match=r"none.jsonl: is empty \(0 bytes\) \(the part 'bare'\)"):
        mixed([*parts, {"name": "bare", "train": str(empty), "template": "sentiment", "held_out": held_out}])


def test_a_part_of_empty_answers_is_named(parts: list[dict], tmp_path: Path) -> None:
    file = write(tmp_path / "hollow.jsonl", [{"prompt": text_of(random.Random(i)), "completion": " "} for i in range(12)])
    with pytest.raises(DataError, match="the part 'hollow'"):
        mixed([*parts, {"name": "hollow", "train": str(file)}])


def test_a_part_too_small_for_its_share_is_named() -> None:
    with pytest.raises(DataError, match="of 10 rows none would be of the part 'b'"):
        counts(mixture({"a": 1.0, "b": 0.001}, rows=10), {"a": 5, "b": 5})
    with pytest.raises(DataError, match="the part 'b' is empty"):
        counts(mixture({"a": None, "b": None}), {"a": 5, "b": 0})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda parts: [parts[0], parts[0]], "two parts are named 'mood'"),
        (lambda parts: [parts[2]], "every part is held out"),
        (lambda parts: [{**parts[0], "share": 1.0}, parts[1]], "'sums' has no share"),
        (lambda parts: [parts[0], {**parts[2], "share": 1.0}], "'field' is held out: it is only tested"),
        (lambda parts: [{**parts[0], "template": "sentimant"}], "Did you mean 'sentiment'"),
        (lambda parts: [{**parts[0], "tran": "x"}], "unknown key 'tran'. Did you mean 'train'"),
        (lambda parts: [{**parts[0], "shape": "text_labl"}], "there is no shape 'text_labl' (the part 'mood')"),
        (lambda parts: [{**parts[0], "train": "nowhere.jsonl"}], "(the part 'mood')"),
        (lambda parts: [{**parts[0], "template": "arithmetic"}], "takes (the part 'mood')"),
        (
            lambda parts: [{**parts[0], "template": None}, parts[1]],
            "of shape 'text_label' ('mood') and of shape 'prompt_completion' ('sums')",
        ),
        (lambda parts: [], "parts"),
    ],
)
def test_a_mixture_that_cannot_be_meant_is_refused_by_name(parts: list[dict], change, problem: str) -> None:
    with pytest.raises((ConfigurationError, DataError)) as caught:
        mixed(change(parts))
    assert problem in str(caught.value)


def test_what_says_how_one_set_is_read_belongs_to_a_part(parts: list[dict]) -> None:
    with pytest.raises(ConfigurationError, match=r"^shape: 'shape' says nothing about a mixture as a whole"):
        build(DataConfig, {"mixture": parts, "shape": "text_label"})
    with pytest.raises(ConfigurationError, match=r"^train: the key 'train' is required"):
        build(DataConfig, {})
    with pytest.raises(ConfigurationError, match="shares are given"):
        mixture({"a": 1.0, "b": 1.0}, temperature=2)


def test_the_resolved_file_is_read_again_as_the_same(parts: list[dict]) -> None:
    config = build(DataConfig, {"mixture": parts})
    assert build(DataConfig, parse_yaml(as_yaml(config))) == config
    assert (config.name, config.source) == ("mixture", "mixture of mood, sums, field")


def test_one_set_through_a_template(parts: list[dict]) -> None:
    found = read(build(DataConfig, {"train": parts[0]["train"], "template": "sentiment"}), 0)
    assert {name: len(rows) for name, rows in found.splits().items()} == {"train": 96, "validation": 12, "test": 12}
    assert found.shape == "prompt_completion"
    assert found.findings.parts == {}
    assert "task" not in found.train[0].metadata
    loaded = read_rows(parts[0]["train"], template=Prompting(name="sentiment", shots=2))
    assert len(loaded.rows) == 120
    assert all(isinstance(row, PromptRow) and row.prompt.count("\n\n") < 3 for row in loaded.rows)
    assert any("without the 2 examples" in note for note in loaded.findings.notes)


def test_columns_may_be_named_after_the_places(tmp_path: Path) -> None:
    draw = random.Random(5)
    file = write(tmp_path / "news.jsonl", [{"document": text_of(draw), "short": text_of(draw)} for _ in range(20)])
    found = read(build(DataConfig, {"train": file, "template": "summarisation", "columns": {"short": "summary"}}), 0)
    first = json.loads(file.read_text().splitlines()[0])
    row = next(row for rows in found.splits().values() for row in rows if row.where.endswith(":1"))
    assert first["document"] in row.prompt + row.completion
    assert first["short"] in row.prompt + row.completion


def test_plain_text_stands_beside_prompts(tmp_path: Path) -> None:
    draw = random.Random(3)
    texts = write(tmp_path / "texts.jsonl", [{"text": text_of(draw)} for _ in range(30)])
    parts = [
        {"name": "prose", "train": str(texts), "share": 0.25},
        {"name": "sums", "train": str(asked(tmp_path / "sums.jsonl", 60)), "share": 0.75},
    ]
    found = mixed(parts, rows=40)
    assert tasks(found.train) == {"prose": 10, "sums": 30}
    assert isinstance(found.train[0], TextRow)
    assert found.shape == PromptRow.shape  # what can be asked is asked as a prompt
