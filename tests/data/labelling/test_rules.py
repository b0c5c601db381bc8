"""Rules in YAML: what they find, and every mistake by its key."""

from pathlib import Path

import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.data.labelling.rules import Rule, load_functions, rule_function, yaml_functions
from tunewright.data.rows import LabelRow

GOOD = """
labels: [ham, spam, 1]
functions:
  prize: {keywords: [prize, "you have   won"], label: spam}
  shout: {patterns: ['\\b[A-Z]{4,}\\b'], label: spam, case: true}
  one: {keywords: [uno], patterns: ['\\beins\\b'], label: 1}
model: {balance: {ham: 0.5, spam: 0.25, "1": 0.25}, prior_accuracy: 0.8}
"""


def row(text: str, second: str = "") -> LabelRow:
    return LabelRow(text=text, second_text=second, label="")


def written(tmp_path: Path, text: str, name: str = "rules.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "second", "wanted"),
    [
        ("A Prize!", "", "spam"),
        ("prizes", "", None),
        ("surprize", "", None),
        ("you have\nwon it", "", "spam"),
        ("nothing", "a prize", "spam"),
        ("", "", None),
    ],
)
def test_keywords_are_whole_words_however_they_are_spaced(text: str, second: str, wanted: str | None):
    rule = Rule(label="spam", keywords=("prize", "you have   won"))
    assert rule_function("prize", rule).call(row(text, second)) == wanted


def test_signs_are_signs_and_borders_need_no_letter():
    rule = rule_function("signs", Rule(label="x", keywords=("c++", "$", "a.b")))
    assert [rule.call(row(text)) for text in ("I like C++.", "10 $ each", "a.b", "axb", "c+")] == ["x", "x", "x", None, None]


def test_case_is_ignored_unless_it_is_asked_for():
    calls = [rule_function("r", Rule(label="x", keywords=("US",), case=case)).call for case in (False, True)]
    assert [call(row("for us")) for call in calls] == ["x", None]
    assert [call(row("the US")) for call in calls] == ["x", "x"]


def test_a_file_of_rules(tmp_path: Path):
    found = yaml_functions(written(tmp_path, GOOD))
    assert [one.name for one in found.functions] == ["prize", "shout", "one"]
    assert found.labels == ("ham", "spam", "1")
    assert [one.call(row("WIN a Prize, eins")) for one in found.functions] == ["spam", None, "1"]
    assert found.functions[1].call(row("FREE")) == "spam"
    assert found.functions[1].call(row("free")) is None
    assert found.model is not None
    assert found.model.prior_accuracy == 0.8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fonctions: {}", r"rules.yaml: fonctions: unknown key 'fonctions'. Did you mean 'functions'"),
        ("functions: {a: {keyword: [x], label: y}}", r"functions.a: keyword: unknown key 'keyword'. Did you mean 'keywords'"),
        ("functions: {a: {keywords: [x]}}", r"functions.a: label: the key 'label' is required"),
        ("functions: {a: {label: y}}", r"functions.a: keywords: a function needs keywords or patterns"),
        ("functions: {a: {keywords: [x, ' '], label: y}}", r"functions.a: keywords.1: the keyword is empty"),
        ("functions: {a: {patterns: ['ok', '(x'], label: y}}", r"patterns.1: '\(x' is no regular expression \(missing \)"),
        ("functions: {a: {patterns: ['x*'], label: y}}", r"patterns.0: 'x\*' is found in every text"),
        ("functions: {a: {keywords: x, label: y}}", r"functions.a: keywords: should be a valid tuple"),
        ("functions: {a: [x]}", r"functions.a: should be a mapping of keys, not a list"),
        ("functions: {a: {keywords: [x], label: ''}}", r"functions.a: label: "),
        ("labels: [spam, ham]\nfunctions: {a: {keywords: [x], label: spma}}", r"functions.a.label.*'spma'.*Did you mean 'spam'"),
        ("model: {prior: 1}", r"model.prior: unknown key 'prior'. Did you mean 'prior_votes'|prior_accuracy"),
        ("model: {balance: {a: 0.5, b: 0.6}}", r"balance.* add up to 1.1"),
        ("model: {balance: {a: 0.0, b: 1.0}}", r"must be above 0"),
        ("model: {balance: evenly}", r"model.balance"),
    ],
)
def test_mistakes_are_named_by_their_key(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        yaml_functions(written(tmp_path, text))


def test_several_files_are_one_set(tmp_path: Path):
    code = written(tmp_path, "def short(row):\n    return 'ham' if len(row.text) < 3 else None\n", "lfs.py")
    found = load_functions([written(tmp_path, GOOD), code])
    assert [one.name for one in found.functions] == ["prize", "shout", "one", "short"]
    assert found.labels == ("ham", "spam", "1")


def test_files_that_do_not_go_together(tmp_path: Path):
    one = written(tmp_path, "functions: {a: {keywords: [x], label: y}}\nmodel: {steps: 3}")
    other = written(tmp_path, "functions: {a: {keywords: [z], label: y}}", "other.yaml")
    with pytest.raises(ConfigurationError, match=r"other.yaml: the name 'a' is given twice.*rules.yaml has it too"):
        load_functions([one, other])
    model = written(tmp_path, "model: {steps: 4}", "model.yaml")
    with pytest.raises(ConfigurationError, match=r"model.yaml: model: another file has a model too"):
        load_functions([one, model])
    strict = written(tmp_path, "labels: [yes, y2]", "labels.yaml")
    with pytest.raises(ConfigurationError, match=r"functions.a.label: the label 'y' is not among.*'y2'"):
        load_functions([one, strict])
    with pytest.raises(ConfigurationError, match="no labelling function"):
        load_functions([strict])
    with pytest.raises(ConfigurationError, match="no such file"):
        load_functions([tmp_path / "none.yaml"])
    with pytest.raises(ConfigurationError, match=r"not in '.txt'.*Allowed: .yaml, .py"):
        load_functions([written(tmp_path, "", "rules.txt")])
