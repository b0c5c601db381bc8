"""Template files: what every shipped wording must do, and what is refused in a file of one's own."""

from difflib import SequenceMatcher

import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.data.rows import LabelRow, PromptRow, QuestionRow, Row
from tunewright.data.templates import OPTIONS, Template, filled, load, names, places
from tunewright.data.templates.dressing import Dressing, Prompting

TASKS = {
    "sentiment",
    "topic",
    "entailment",
    "paraphrase",
    "question_answering",
    "summarisation",
    "translation",
    "title",
    "reading_comprehension",
    "arithmetic",
}
GOOD = {"about": "x", "shapes": ["text_label"], "places": {"text": "text", "label": "label"}, "answer": "label", "choices": "any"}


def samples(name: str) -> list[Row]:
    """A row for each label that the template knows, or two rows."""
    template = load(name)
    pair = {"text": "Ada sang.", "second_text": "Someone sang."} if "second_text" in str(template.places) else {"text": "Ada sang."}
    if template.choices is not None:
        labels = list(template.choices) if isinstance(template.choices, dict) else ["sport", "music"]
        # Sets have one word for what does not follow, or two: never both.
        return [LabelRow(label=label, where="f:1", **pair) for label in labels if label != "not_entailment"]
    if name == "reading_comprehension":
        given = {"question": "Who sang?", "context": "Ada sang."}
        return [QuestionRow(answers=("Ada",), starts=(0,), **given), QuestionRow(answers=(), starts=(), **given)]
    return [PromptRow(prompt="Ada sang a song.", completion="She sang it."), PromptRow(prompt="Bo left.", completion="Gone.")]


def dressing(name: str, **settings: object) -> Dressing:
    values = {"source_language": "English", "target_language": "German"} if name == "translation" else {}
    rows = samples(name)
    return Dressing(build(Prompting, {"name": name, "values": values, **settings}), rows, rows, 0)


def test_what_ships() -> None:
    assert set(names()) == TASKS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_wording_renders_and_says_something_of_its_own(name: str) -> None:
    ready = dressing(name)
    assert len(ready.measured) >= 10
    for row in samples(name):
        shown = [ready.one(row, wording=number) for number in range(len(ready.template.wordings))]
        for one in shown:
            assert not places(one.prompt + one.completion)
            assert one.prompt == one.prompt.strip()
            assert one.completion.strip()
        prompts = [one.prompt for one in shown]
        assert len(set(prompts)) == len(prompts)
        for number in ready.measured:
            words = ready.template.wordings[number]
            assert row.input_text().split("\n")[-1].rstrip(".") in prompts[number], words.prompt


@pytest.mark.parametrize("name", sorted(TASKS))
def test_no_two_wordings_are_nearly_the_same(name: str) -> None:
    bare = [filled(one.prompt, dict.fromkeys([*load(name).places, *OPTIONS], "")) for one in load(name).wordings]
    for place, text in enumerate(bare):
        near = [other for other in bare[:place] if SequenceMatcher(None, text, other).ratio() > 0.8]
        assert not near, (text, near)


@pytest.mark.parametrize("name", sorted(name for name in TASKS if load(name).choices is not None))
def test_answers_to_measured_wordings_are_words_of_the_choices(name: str) -> None:
    ready = dressing(name)
    for number in ready.measured:
        words = ready._words(ready.template.wordings[number])
        found = [ready.one(row, wording=number).completion for row in samples(name)]
        assert found == [words[row.target_text()] for row in samples(name)]
        assert len(set(found)) == len(found)


def test_several_wordings_list_the_options_of_the_rows_at_hand() -> None:
    rows = [LabelRow(text="a", label="neg"), LabelRow(text="b", label="POS")]
    ready = Dressing(Prompting(name="sentiment"), rows, rows, 0)
    prompts = [ready.one(rows[0], wording=number).prompt for number in ready.measured]
    assert sum("negative or positive" in prompt for prompt in prompts) >= 3
    assert any("- negative\n- positive" in prompt for prompt in prompts)
    assert not any("neutral" in prompt for prompt in prompts)


def test_values_that_hold_braces_and_literal_braces_stay() -> None:
    assert filled("{{a}} {a} {b}", {"a": "{b}", "b": "{a}"}) == "{a} {b} {a}"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"wordings": ["Say {txt}"]}, "'txt' is nothing that is known here. Did you mean 'text'?"),
        ({"wordings": ["Say it"]}, "no place for a row"),
        ({"wordings": ["{text} is {label}"]}, "holds 'label', which is what is to be answered"),
        ({"wordings": [{"prompt": "{label}: write", "answer": "{text} {label}", "inverted": True}, "{text}"]}, "holds 'label'"),
        ({"wordings": ["Say {text}", "Say  {text}"]}, "says the same as another wording"),
        ({"wordings": [{"prompt": "{label}", "answer": "{text}", "inverted": True}]}, "all wordings are inverted"),
        ({"wordings": [{"prompt": "{text}", "answer": "yes"}]}, "the same for every row"),
        ({"answer": "labl", "wordings": ["{text}"]}, "Did you mean 'label'?"),
        ({"shapes": ["text_labl"], "wordings": ["{text}"]}, "Did you mean 'text_label'?"),
        ({"choices": {"a": "A"}, "aliases": {"x": "b"}, "wordings": ["{text}"]}, "'b' is nothing that is known here"),
        ({"choices": None, "wordings": ["{text} {options}"]}, "'options' is nothing that is known here"),
        ({"wordings": [{"prompt": "{text}", "answr": "x"}]}, "unknown key 'answr'"),
        ({"wordings": []}, "wordings"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(change: dict, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(Template, GOOD | change, "mine.yaml")
    assert problem in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_misspelt_name_is_found_when_the_settings_are_read() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'sentiment'\?"):
        load("sentimnt")
    with pytest.raises(ConfigurationError, match=r"^name: there is no template 'topics'. Did you mean 'topic'\?"):
        build(Prompting, {"name": "topics"})


def test_columns_that_have_the_names_of_places_are_these() -> None:
    template = load("summarisation")
    assert template.renamed({}, ["document", "summary"]) == {"document": "prompt", "summary": "completion"}
    assert template.renamed({"article": "document"}, ["article", "summary"]) == {"article": "prompt", "summary": "completion"}
    assert template.renamed({}, ["prompt", "completion", "document"]) == {}
