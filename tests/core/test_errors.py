"""Errors: one grammar, the right exit code, and a safe way across process borders."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from tunewright.core import errors
from tunewright.core.errors import RequestError, TunewrightError, WorkError, listed, nearest

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TunewrightError)]
BUILTINS = {
    "ConfigurationError": ValueError,
    "UnknownNameError": LookupError,
    "DataError": ValueError,
    "BaseModelError": ValueError,
    "RunFolderError": FileExistsError,
    "MissingExtraError": ImportError,
    "DoesNotFitError": MemoryError,
    "DivergedError": ArithmeticError,
    "GraderError": ValueError,
    "EndpointError": ConnectionError,
    "StorageError": OSError,
}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_a_message_says_where_what_allowed_and_what_to_do_in_this_order():
    error = errors.ConfigurationError(
        "unknown key 'rnk'", where="run.yaml: method.rnk", allowed=("alpha", "rank"), given="rnk", hint="See the docs."
    )
    assert str(error) == "run.yaml: method.rnk: unknown key 'rnk'. Did you mean 'rank'? Allowed: alpha, rank. See the docs."


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "it broke."),
        ({"where": "a.jsonl:17"}, "a.jsonl:17: it broke."),
        ({"hint": "Mend it"}, "it broke. Mend it."),
        ({"hint": "Mend it?"}, "it broke. Mend it?"),
        ({"allowed": ["x"]}, "it broke. Allowed: x."),
        ({"allowed": ["lora"], "given": "zzzz"}, "it broke. Allowed: lora."),
        ({"given": "lora"}, "it broke."),
    ],
)
def test_parts_that_are_not_given_leave_no_trace(parts, said):
    assert str(TunewrightError("it broke", **parts)) == said


def test_a_problem_that_ends_a_sentence_gets_no_second_full_stop():
    assert str(TunewrightError("what now?", hint="Stop!")) == "what now? Stop!"


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("lroa", ["full", "lora"], "lora"),
        ("LORA", ["full", "lora"], "lora"),
        ("lora", ["Full", "LoRA"], "LoRA"),
        ("learning_rte", ["epochs", "learning_rate"], "learning_rate"),
        ("qqq", ["full", "lora"], None),
        ("lora", [], None),
        ("", ["lora"], None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant_or_none(name, known, found):
    assert nearest(name, known) == found


def test_long_lists_are_cut_and_their_tail_is_counted():
    names = [f"n{number}" for number in range(19)]
    assert listed(names[:16]) == ", ".join(names[:16])
    assert listed(names) == ", ".join(names[:16]) + " and 3 more"
    assert listed((name for name in "abc"), limit=1) == "a and 2 more"


@every_kind
def test_the_branch_decides_the_exit_code(kind):
    assert kind("p").exit_code == (2 if issubclass(kind, RequestError) else 1)
    assert kind is TunewrightError or issubclass(kind, RequestError) != issubclass(kind, WorkError)


@every_kind
def test_each_is_also_the_builtin_that_a_caller_would_catch(kind):
    builtin = BUILTINS.get(kind.__name__)
    if builtin is None:  # the branches, and what Python has no word for
        assert not issubclass(kind, ValueError | LookupError | OSError | ImportError | MemoryError | ArithmeticError)
        return
    with pytest.raises(builtin) as caught:
        raise kind("p", where="w")
    assert str(caught.value) == "w: p."


def test_the_table_of_builtins_names_only_errors_that_exist():
    assert set(BUILTINS) <= {kind.__name__ for kind in KINDS}


@every_kind
def test_each_says_in_its_own_docstring_when_it_is_raised(kind):
    assert "__doc__" in vars(kind)
    assert len(kind.__doc__.split()) >= 6
    assert kind.__doc__.strip().endswith(".") or "Args:" in kind.__doc__


@every_kind
@pytest.mark.parametrize("passed_on", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])  # noqa: S301
def test_each_crosses_process_borders_whole(kind, passed_on):
    error = kind("p", where="w", allowed=iter(["aa", "ab"]), given="aa", hint="Do it.")
    again = passed_on(error)
    assert type(again) is kind
    assert again is not error
    assert again.as_dict() == error.as_dict()
    assert again.problem == "p"
    assert str(again) == str(error)


def test_as_data_it_holds_the_same_words():
    error = errors.UnknownNameError("there is no method 'x'", where="method", allowed=("y",), given="x", hint="Choose.")
    assert error.as_dict() == {
        "error": "UnknownNameError",
        "message": "method: there is no method 'x'. Allowed: y. Choose.",
        "where": "method",
        "given": "x",
        "allowed": ["y"],
        "hint": "Choose.",
    }
