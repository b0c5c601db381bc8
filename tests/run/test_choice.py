"""What a sparse tuning chooses is chosen once, kept with the run, and taken up again."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.errors import DivergedError, Interrupted, StorageError
from tunewright.core.runs import RunFolder
from tunewright.evaluation.opening import load_base, open_model
from tunewright.finetune import finetune, resume
from tunewright.methods.sparse import Sparse, SparseTuning
from tunewright.run import choice
from tunewright.testing.toy import outputs, toy_trees

from .conftest import losses, weights

SPARSE = {"name": "sparse", "share": 0.05, "rows": 7}


def test_a_run_that_goes_on_chooses_nothing_again(described, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = described("llama", pairs, name="whole", method=SPARSE)
    whole = finetune(run).folder
    stopped = described("llama", pairs, name="stopped", method=SPARSE)
    seen = iter(range(1, 100))
    with pytest.raises(Interrupted):
        finetune(stopped, stop_asked=lambda: next(seen) >= 3)
    monkeypatch.setattr(SparseTuning, "choose", lambda self, gradients: pytest.fail("it was chosen again"))
    folder = resume(stopped.folder / "stopped").folder
    assert losses(folder) == losses(whole)
    assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(whole).items())
    assert losses(whole)[-1][1] < losses(whole)[0][1]
    assert "entries of" in RunFolder(whole).manifest["reasons"]["method"]


def test_the_tuned_model_is_found_again_and_can_be_a_base(described, pairs) -> None:
    folder = finetune(described("gpt2", pairs, method=SPARSE)).folder
    opened = open_model(str(folder))
    assert opened.tuning is not None
    chosen = load_file(folder / choice.FILE)
    assert {name: one.tolist() for name, one in opened.tuning.chosen_places().items()} == {
        name: one.tolist() for name, one in chosen.items()
    }
    trees = toy_trees(opened.model)
    tuned = outputs(opened.model, trees)
    with opened.tuning.disabled():
        assert not torch.equal(outputs(opened.model, trees), tuned)
    assert torch.equal(outputs(load_base(str(folder)), trees), tuned)


def test_under_a_new_head(described, labelled) -> None:
    folder = finetune(described("bert", labelled, method=SPARSE)).folder
    assert (folder / "adapter" / "head.json").is_file()
    assert open_model(str(folder)).tuning is not None


@pytest.mark.parametrize("by", ["fisher", "gradient"])
def test_so_many_rows_are_looked_at(by: str, described, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    made = choice.Source._passes

    def counted(self, rows, one_by_one):
        for trees in made(self, rows, one_by_one):
            seen.append(len(trees))
            yield trees

    monkeypatch.setattr(choice.Source, "_passes", counted)
    finetune(described("llama", pairs, method={**SPARSE, "by": by}, training={"max_steps": 1}))
    assert sum(seen) == 7
    assert (max(seen) == 1) is (by == "fisher")


def test_what_was_chosen_must_be_as_it_was(described, pairs) -> None:
    run = described("llama", pairs, name="run", method=SPARSE)
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=lambda: True)
    path = run.folder / "run" / choice.FILE
    save_file({name: one + 1 for name, one in load_file(path).items()}, path)
    with pytest.raises(StorageError, match="what the run trains has changed since it began"):
        resume(run.folder / "run")
    path.unlink()
    with pytest.raises(StorageError, match="what the run trains cannot be read"):
        resume(run.folder / "run")


def test_no_folder_is_left_where_nothing_could_be_chosen(described, pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self, gradients) -> None:
        raise DivergedError("the gradients by which entries are chosen are not finite")

    monkeypatch.setattr(SparseTuning, "choose", fails)
    run = described("llama", pairs, name="run", method=Sparse())
    with pytest.raises(DivergedError, match="not finite"):
        finetune(run)
    assert not (run.folder / "run").exists()
