"""Strict configuration: what is refused and how it is said, YAML as users expect it, settings put over a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import BeforeValidator, Field, field_validator

from tunewright.core.configuration import LARGEST_RUN_FILE, Strict, as_yaml, build, fields_at, override, parse_yaml, read_file
from tunewright.core.errors import ConfigurationError, DataError, UnknownNameError
from tunewright.finetune import Run


class Leaf(Strict):
    rate: float = Field(0.1, gt=0)
    steps: int = 1
    label: str = ""


def _spoken(value: object) -> object:
    if value == "bad":
        raise UnknownNameError("there is no tool 'bad'", where="name", allowed=("bat",), given="bad", hint="Choose.")
    return value


class Branch(Strict):
    leaf: Leaf = Leaf()
    leaves: tuple[Leaf, ...] = ()
    maybe: Leaf | None = None
    tool: Annotated[str, BeforeValidator(_spoken)] = "bat"

    @field_validator("tool")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 5:
            raise ValueError("is too long a name")
        return value


class Tree(Strict):
    root: str
    branch: Branch = Branch()


def refused(data: dict[str, object], where: str = "") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        build(Tree, data, where)
    return caught.value


@pytest.mark.parametrize(
    ("data", "where", "allowed"),
    [
        ({"rot": 1}, "rot", "root"),
        ({"branch": {"lef": {}}}, "branch.lef", "leaf"),
        ({"branch": {"leaf": {"rte": 1}}}, "branch.leaf.rte", "rate"),
        ({"branch": {"leaves": [{}, {"stps": 1}]}}, "branch.leaves.1.stps", "steps"),
        ({"branch": {"maybe": {"labl": 1}}}, "branch.maybe.labl", "label"),
    ],
)
def test_an_unknown_key_is_named_with_its_path_and_the_nearest(data, where, allowed):
    error = refused({"root": "r", **data}, "run.yaml")
    assert error.where == f"run.yaml: {where}"
    assert error.problem == f"unknown key '{where.rpartition('.')[2]}'"
    assert f"Did you mean '{allowed}'?" in str(error)


def test_a_missing_key_is_asked_for():
    assert str(refused({}, "run.yaml")) == "run.yaml: root: the key 'root' is required. Add it."
    assert refused({}).where == "root"


@pytest.mark.parametrize(
    ("leaf", "key", "said"),
    [
        ({"rate": "fast"}, "rate", "got 'fast' (str)"),
        ({"rate": float("nan")}, "rate", "got nan (float)"),
        ({"rate": float("inf")}, "rate", "got inf (float)"),
        ({"rate": -float("inf")}, "rate", "got -inf (float)"),
        ({"rate": 0}, "rate", "rate: should be greater than 0, got 0 (int)"),
        ({"rate": None}, "rate", "got None (NoneType)"),
        ({"steps": 1.5}, "steps", "got 1.5 (float)"),
        ({"steps": [1]}, "steps", "got [1] (list)"),
        ({"label": 7}, "label", "got 7 (int)"),
    ],
)
def test_a_wrong_value_is_repeated_with_its_type(leaf, key, said):
    error = refused({"root": "r", "branch": {"leaves": [{}, {}, leaf]}})
    assert error.where == f"branch.leaves.2.{key}"
    assert said in str(error)


def test_a_long_value_is_cut():
    error = refused({"root": ["x" * 5000]})
    assert len(str(error)) < 200
    assert "... (list)" in str(error)


def test_an_entry_that_was_refused_by_its_own_room_keeps_its_words():
    error = refused({"root": "r", "branch": {"tool": "bad"}}, "run.yaml")
    assert type(error) is UnknownNameError
    assert str(error) == "run.yaml: branch.tool.name: there is no tool 'bad'. Did you mean 'bat'? Allowed: bat. Choose."
    assert str(refused({"root": "r", "branch": {"tool": "hammer"}})) == "branch.tool: is too long a name."


def test_a_configuration_does_not_change():
    tree = build(Tree, {"root": "r"})
    with pytest.raises(ValueError, match="frozen"):
        tree.root = "s"
    assert tree == build(Tree, {"root": "r"})


def test_keys_that_are_not_words_are_refused():
    assert "keys should be strings" in str(refused({"root": "r", 1: 2}))


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ((), ["root", "branch"]),
        (("branch", "leaves", 3), ["rate", "steps", "label"]),
        (("branch", "maybe"), ["rate", "steps", "label"]),
    ],
)
def test_the_fields_below_a_path(path, known):
    assert fields_at(Tree, path) == known


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("5E3", 5000.0),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("0", 0),
        ("-7", -7),
        ("1_000", 1000),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("=", "="),
        ("'1'", "1"),
    ],
)
def test_scalars_are_what_users_expect(text, value):
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_infinity_and_nan_are_numbers_that_no_configuration_takes():
    for text in (".inf", "-.inf", ".nan", "1e999"):
        with pytest.raises(ConfigurationError, match=r"should be .*, got (-?inf|nan) \(float\)"):
            build(Leaf, parse_yaml(f"rate: {text}"))


@pytest.mark.parametrize(
    ("text", "line", "other"), [("a: 1\nb: 2\na: 3\n", 3, 1), ("x:\n  a: 1\n  a: 1\n", 3, 2), ("- {b: 1, b: 2}\n", 1, 1)]
)
def test_a_key_given_twice_is_told_with_both_lines(text, line, other):
    with pytest.raises(
        ConfigurationError, match=rf"^run.yaml: line {line}: the key '.' is given twice. Line {other} has it too\.$"
    ):
        parse_yaml(text, "run.yaml")


def test_the_same_key_in_two_places_is_no_duplicate():
    assert parse_yaml("x: {a: 1}\ny: {a: 2}") == {"x": {"a": 1}, "y": {"a": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch owned']",
        "a: !!python/name:os.system",
        "a: !!python/tuple [1]",
        "a: !mine x",
        "a: !!int ten",
        "a: !!int ''",
        "a: !!bool maybe",
        "a: !!timestamp soon",
        "a: [1",
        "a: b: c",
        "\ta: 1",
        "a: 1\n---\nb: 2",
        "a: *nowhere",
        "a: &x {b: *x}",
        "{[1]: 2}",
        "{{a: 1}: 2}",
        "a: \x00",
        "a: " + "9" * 5000,
        "[" * 1000,
        "%",
    ],
)
def test_what_is_not_plain_yaml_is_refused_in_our_words(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        parse_yaml(text, "run.yaml")
    assert caught.value.where.startswith("run.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_named_where_yaml_stops():
    with pytest.raises(ConfigurationError) as caught:
        parse_yaml("a: 1\nb: 2\nc: [1\n", "run.yaml")
    assert caught.value.where in ("run.yaml:3", "run.yaml:4")


@pytest.mark.parametrize("pair", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "{{a: {0}, b: {0}, c: {0}, d: {0}, e: {0}, f: {0}}}"])
def test_aliases_to_aliases_are_refused_before_anything_is_written_out(pair):
    lines = ["v0: &v0 [1, 2]"] + [f"v{n}: &v{n} " + pair.format(f"*v{n - 1}") for n in range(1, 40)]
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="aliases stand for too many values"):
        parse_yaml("\n".join(lines), "run.yaml")
    assert time.monotonic() - began < 1


def test_an_honest_alias_is_the_value_it_stands_for():
    assert parse_yaml("a: &rate 1e-4\nb: *rate\nc: [&l [1], *l]") == {"a": 1e-4, "b": 1e-4, "c": [[1], [1]]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "root: é\nbranch: {leaf: {rate: 1e-4}}\n"),
        ("run.yml", '{"root": "é", "branch": {"leaf": {"rate": 1e-4}}}'),
        ("run.toml", 'root = "é"\n[branch.leaf]\nrate = 1e-4\n'),
        ("run.json", '{\n\t"root": "é",\n\t"branch": {"leaf": {"rate": 1e-4}}\n}'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_run_file_is_yaml_toml_or_json_with_or_without_a_byte_order_mark(tmp_path, name, text, mark):
    (tmp_path / name).write_text(mark + text, encoding="utf-8")
    tree = build(Tree, read_file(tmp_path / name))
    assert (tree.root, tree.branch.leaf.rate) == ("é", 1e-4)


def test_json_as_python_writes_it_keeps_an_emoji(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"root": "😀", "rate": 1e-05}))
    assert read_file(tmp_path / "run.json") == {"root": "😀", "rate": 1e-05}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.yaml", b"- a\n- b\n", "a mapping of keys, not a list"),
        ("run.yaml", b"", "not a NoneType"),
        ("run.yaml", b"hello", "not a str"),
        ("run.json", b"[]", "not a list"),
        ("run.yaml", b"\x89PNG\r\n\xff\xfe", "is not UTF-8 text (byte 0)"),
        ("run.toml", b"a = \xff", "is not UTF-8 text (byte 4)"),
        ("run.yaml", b"a: 1\n#" + b"x" * LARGEST_RUN_FILE, "is too large to be a run file"),
        ("run.toml", b"a = 1\na = 2\n", "not readable as TOML"),
        ("run.toml", b"a = " + b"[" * 3000, "not readable as TOML"),
        ("run.toml", b"a = " + b"9" * 5000, "not readable as TOML"),
        ("run.json", b'{"a": 1,\n"b" 2}', "run.json:2: not readable as JSON"),
        ("run.json", b'{"x": {"a": 1, "a": 1}}', "the key 'a' is given twice"),
        ("run.json", b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        ("run.json", b'{"a": ' + b"9" * 5000 + b"}", "not readable as JSON"),
    ],
)
def test_what_is_no_run_file_says_so_and_where(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_file(tmp_path / name)
    assert said in str(caught.value)
    assert caught.value.where.startswith(str(tmp_path / name))


@pytest.mark.parametrize("place", ["none.yaml", "."])
def test_a_run_file_that_is_not_there_is_told(tmp_path, place):
    with pytest.raises(ConfigurationError, match="there is no such run file"):
        read_file(tmp_path / place)


FILE = {"method": {"name": "lora", "rank": 4}, "training": {"epochs": 2, "optimizer": {"decay": 0.1}}, "base": "embedded"}


@pytest.mark.parametrize(
    ("settings", "path", "value"),
    [
        ([("method.rank", "8")], ["method"], {"name": "lora", "rank": 8}),
        ([("method", "lora")], ["method"], {"name": "lora", "rank": 4}),
        ([("method", "full")], ["method"], "full"),
        ([("method", "selective"), ("method.share", "0.5")], ["method"], {"name": "selective", "share": 0.5}),
        ([("method", "lora"), ("method.alpha", "1e1")], ["method"], {"name": "lora", "rank": 4, "alpha": 10.0}),
        ([("training.optimizer.decay", "0")], ["training"], {"epochs": 2, "optimizer": {"decay": 0}}),
        ([("evaluation.sampling.top", "3")], ["evaluation"], {"sampling": {"top": 3}}),
        ([("base.revision", "main")], ["base"], {"name": "embedded", "revision": "main"}),
        ([("base", "a"), ("base", "b")], ["base"], "b"),
        ([("evaluation.metrics", "[rouge, bleu]")], ["evaluation", "metrics"], ["rouge", "bleu"]),
        ([("seed", "")], ["seed"], None),
        ([("training", "null")], ["training"], None),
    ],
)
def test_settings_are_put_over_the_file(settings, path, value):
    found = override(FILE, settings)
    for part in path:
        found = found[part]
    assert found == value


def test_the_file_itself_is_not_changed_and_the_rest_stays():
    before = json.dumps(FILE)
    changed = override(FILE, [("training.optimizer.decay", "9"), ("method.rank", "1")])
    assert json.dumps(FILE) == before
    assert changed["base"] == "embedded"
    assert changed["training"]["epochs"] == 2
    assert override(FILE, []) == FILE


def test_a_flag_that_is_no_yaml_is_named():
    with pytest.raises(ConfigurationError, match=r"^--method\.rank:1: not readable as YAML"):
        override(FILE, [("method.rank", "[1")])


SCALARS = [
    "1e-4",
    "1e5",
    "12345e6",
    ".5",
    "no",
    "on",
    "010",
    "0x1F",
    "1_000",
    "1:30",
    "2024-01-31",
    "=",
    "<<",
    "null",
    "",
    "~",
    "true",
    "inf",
    ".inf",
]
AWKWARD = [" x ", "a: b", "# x", "é😀", "two\nlines", "'", '"', "\x85", "\t", "- a", "*x", "!y", "%z", "\u2028"]


@pytest.mark.parametrize(
    "label",
    [*SCALARS, *AWKWARD, "x" * 300],
)
def test_text_comes_back_as_the_same_text(label):
    leaf = Leaf(label=label)
    assert build(Leaf, parse_yaml(as_yaml(leaf))) == leaf
    assert yaml.safe_load(as_yaml(leaf))["label"] == label  # and other YAML readers agree


@pytest.mark.parametrize("rate", [1e-4, 1e-05, 3e-12, 0.1 + 0.2, 1e22, 5e-324, 123456789.0, 1.7976931348623157e308])
def test_numbers_come_back_to_the_last_bit(rate):
    assert build(Leaf, parse_yaml(as_yaml(Leaf(rate=rate)))).rate == rate


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "full", "name": "1e5", "device": "cuda:1", "threads": 2, "seed": 2**32},
        {"method": {"name": "lora", "rank": 4, "rank_stabilized": True, "targets": ["q_proj", "010"]}, "objective": "sft"},
        {"training": {"learning_rate": 1e-05, "clip": None, "max_steps": 3}, "evaluation": {"written": 0}, "folder": "é/runs"},
    ],
)
def test_a_whole_run_comes_back_from_its_file(tmp_path, settings):
    run = build(Run, {"data": {"train": "examples.jsonl"}, **settings})
    (tmp_path / "run.yaml").write_text(as_yaml(run), encoding="utf-8")
    again = build(Run, read_file(tmp_path / "run.yaml"))
    assert again == run
    assert type(again.method) is type(run.method)
    assert as_yaml(again) == as_yaml(run)
    assert isinstance(again.folder, Path)


@pytest.mark.parametrize(
    ("settings", "where", "guess"),
    [
        ({"bse": "x"}, "bse", "base"),
        ({"method": "lroa"}, "method", "lora"),
        ({"method": {"name": "lora", "rnk": 4}}, "method.rnk", "rank"),
        ({"training": {"optimizer": {"weight_decy": 0}}}, "training.optimizer.weight_decy", "weight_decay"),
        ({"data": {"train": "x", "test_shar": 0.1}}, "data.test_shar", "test_share"),
    ],
)
def test_every_floor_of_a_run_finds_the_name_that_was_meant(settings, where, guess):
    with pytest.raises(ConfigurationError, match=f"Did you mean '{guess}'") as caught:
        build(Run, {"data": {"train": "examples.jsonl"}, **settings}, "run.yaml")
    assert caught.value.where == f"run.yaml: {where}"


def test_the_kind_of_a_nested_error_survives():
    def raising(_: object) -> object:
        raise DataError("is empty", where="rows")

    class Holder(Strict):
        rows: Annotated[object, BeforeValidator(raising)]

    with pytest.raises(DataError) as caught:
        build(Holder, {"rows": 1}, "run.yaml")
    assert caught.value.where == "run.yaml: rows.rows"
