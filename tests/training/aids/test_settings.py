"""What a user writes under `training.aids`, and may get wrong."""

from pathlib import Path

import pytest

from tunewright.core.configuration import as_yaml, build, override, parse_yaml
from tunewright.core.errors import ConfigurationError
from tunewright.graders.string_check import StringCheck
from tunewright.objectives.dpo import DPO
from tunewright.objectives.grpo import GRPO
from tunewright.objectives.masked_language_modeling import MaskedLanguageModeling
from tunewright.training.aids.sense import require_sensible
from tunewright.training.aids.settings import EWC, Aids, Order
from tunewright.training.settings import Training


def test_nothing_unless_asked_for():
    aids = Training().aids
    assert not aids.around_loss
    assert not aids.holds
    assert aids.order.kind == "shuffled"


def test_words_stand_for_mappings():
    aids = build(Training, {"aids": {"order": "easy_first", "ewc": "general.txt"}}).aids
    assert aids.order == Order(kind="easy_first")
    assert aids.ewc == EWC(rows=Path("general.txt"))
    assert aids.holds
    flags = override({"aids": {"order": "easy_first"}}, [("aids.order.by", "loss"), ("aids.neftune", "5")])
    assert build(Training, flags).aids == Aids(neftune=5, order=Order(kind="easy_first", by="loss"))


def test_a_run_file_holds_them():
    training = Training(aids=Aids(r_drop=1.0, l2_to_base=0.1, ewc=EWC(rows=Path("a.txt"), strength=5)))
    assert build(Training, parse_yaml(as_yaml(training))) == training


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"neftune": -1}, r"aids.neftune: should be greater than or equal to 0"),
        ({"r_drop": -0.5}, r"aids.r_drop: should be greater than or equal to 0"),
        ({"l2_to_base": -1e-3}, r"aids.l2_to_base: should be greater than or equal to 0"),
        ({"l2_to_base": ".inf"}, r"aids.l2_to_base"),
        ({"ewc": {"strength": 2}}, r"aids.ewc.rows: the key 'rows' is required"),
        ({"ewc": {"rows": "a.txt", "strength": 0}}, r"aids.ewc.strength: should be greater than 0"),
        ({"ewc": {"rows": "a.txt", "rowz": 3}}, r"aids.ewc.rowz: unknown key 'rowz'.*Did you mean 'rows'"),
        ({"order": "easyfirst"}, r"aids.order.kind: should be 'shuffled' or 'easy_first'"),
        ({"order": {"kind": "easy_first", "start": 0}}, r"aids.order.start: should be greater than 0"),
        ({"order": {"kind": "easy_first", "epochs": 0}}, r"aids.order.epochs"),
        ({"order": {"by": "loss"}}, r"aids.order.by: 'by' says nothing about rows that are shuffled. Add `kind: easy_first`"),
        ({"neftun": 5}, r"aids.neftun: unknown key 'neftun'.*Did you mean 'neftune'"),
    ],
)
def test_mistakes_are_named(given: dict[str, object], said: str):
    with pytest.raises(ConfigurationError, match=said):
        build(Training, {"aids": given})


@pytest.mark.parametrize("held", ["int8", "nf4", "int4"])
def test_weights_that_are_rounded_have_no_importance(held: str):
    with pytest.raises(ConfigurationError, match=rf"aids.ewc: weights that are held in {held} have no.*`aids.l2_to_base`"):
        build(Training, {"base_precision": held, "aids": {"ewc": "general.txt"}})
    assert build(Training, {"base_precision": held, "aids": {"l2_to_base": 0.1}}).aids.holds


@pytest.mark.parametrize(
    ("aids", "where"),
    [(Aids(neftune=5), "neftune"), (Aids(r_drop=1), "r_drop"), (Aids(order=Order(kind="easy_first", by="loss")), "order.by")],
)
def test_a_policy_compares_its_own_passes(aids: Aids, where: str):
    policy = GRPO(grader=StringCheck(reference="x"))
    with pytest.raises(ConfigurationError, match=rf"training.aids.{where}: a policy learns from answers that it draws itself"):
        require_sensible(aids, policy)
    require_sensible(aids, DPO())
    require_sensible(Aids(l2_to_base=1, order=Order(kind="easy_first")), policy)


def test_hidden_words_are_scored_where_r_drop_does_not_hear():
    objective = MaskedLanguageModeling()
    with pytest.raises(ConfigurationError, match=r"training\.aids\.r_drop: hidden words"):
        require_sensible(Aids(r_drop=1), objective)
    require_sensible(Aids(neftune=5, l2_to_base=1), objective)
