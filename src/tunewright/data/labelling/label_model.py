"""From votes to probabilities of labels: majority vote, and a model that learns how accurate each function is from agreement.

Shape suffixes: N rows, P different patterns of votes, F functions, C labels, O what a function can do: give any label, or abstain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from tunewright.core.errors import ConfigurationError
from tunewright.data.labelling.settings import LabelModel
from tunewright.data.labelling.votes import ABSTAIN, Votes

if TYPE_CHECKING:
    import numpy as np

Accuracies = Literal["symmetric", "class_conditional"]
TIE = 1e-9  # what breaks a tie is far below any difference that was estimated


@dataclass(frozen=True)
class Fitted:
    """An estimated label model.

    Args:
        labels: in order.
        balance: the share of each label.
        accuracies: for each function how often its votes are right, as the model believes, with the prior in it.
        kind: `symmetric` or `class_conditional`, as `LabelModel.accuracies`.
        log_FCO: log p(what the function does | label); a constant of abstentions is left out where they say nothing.
        steps: of the estimation.
        converged: whether it ended before the most steps that were allowed.
    """

    labels: tuple[str, ...]
    balance: tuple[float, ...]
    accuracies: Mapping[str, float]
    kind: Accuracies
    log_FCO: np.ndarray
    steps: int
    converged: bool

    def probabilities_NC(self, votes: Votes) -> np.ndarray:
        """p(label | votes) of each row; of a row without votes that is the balance, or near it."""
        import numpy as np

        return _posterior(votes.votes_NF, self.log_FCO, np.log(self.balance))


class _Patterns(NamedTuple):
    """The different rows of a matrix of votes, and how often each occurs: rows that are voted on alike are one."""

    votes_PF: np.ndarray
    counts_P: np.ndarray


def majority_NC(votes: Votes) -> np.ndarray:
    """The share of each label among the votes of a row; a row without votes gets equal shares."""
    import numpy as np

    counts_NC = votes.counts_NC()
    total_N = counts_NC.sum(axis=1, keepdims=True)
    return np.where(total_N > 0, counts_NC / np.maximum(total_N, 1), 1 / max(len(votes.labels), 1))


def best_N(probabilities_NC: np.ndarray, votes: Votes) -> np.ndarray:
    """The index of each row's most probable label; of equal ones that which most votes in `votes` give, then the first."""
    totals_C = votes.counts_NC().sum(axis=0)
    return (probabilities_NC + TIE * totals_C / max(totals_C.sum(), 1)).argmax(axis=1)


def fit(votes: Votes, settings: LabelModel) -> Fitted:
    """Estimate accuracies (and, if asked for, the balance) by expectation maximisation from the majority vote on.

    `symmetric`, for a function j that votes: p(vote = l | y) = a_j if l = y, else (1 - a_j) / (C - 1). Expectation:
    q_i(y) ~ balance(y) * product over the votes of row i. Maximisation: a_j = (sum_i q_i(vote_ij) + s m) / (n_j + s), with n_j the
    number of its votes, m = `prior_accuracy` and s = `prior_votes`: a Beta prior that weighs as much as s votes.
    `class_conditional`: p(what j does | y) is a table, an abstention one of its columns, so that not to vote says something too;
    its Dirichlet prior has the function's own rates with accuracy m, and weighs as much as s votes of it under each label.

    Given the label, functions are taken to err independently: of two that are copies of each other both are believed too much.

    Source: Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm"; Ratner et al.
    2016, arXiv 1605.07723 (abstentions; no label is ever seen).
    Cost: steps * different patterns of votes * functions * labels; deterministic.
    Raises: `ConfigurationError` when shares are given for other labels than there are, there are fewer than two labels, or
    `symmetric` is asked for where every function gives one label only.
    """
    import numpy as np

    if len(votes.labels) < 2:
        given = f"only '{votes.labels[0]}'" if votes.labels else "none"
        hint = "Let a function vote for another label, or list all of them under `labels`."
        raise ConfigurationError(f"two labels are needed, the functions give {given}", where="labels", hint=hint)
    rows_PF, counts_P = np.unique(votes.votes_NF, axis=0, return_counts=True)
    settings = settings.model_copy(update={"accuracies": kind_for(votes, settings)})
    if settings.accuracies == "symmetric":
        voted_P = (rows_PF != ABSTAIN).any(axis=1)
        rows_PF, counts_P = rows_PF[voted_P], counts_P[voted_P]
    patterns = _Patterns(rows_PF, counts_P.astype(float))
    balance_C = _given_balance(settings, votes.labels)
    posterior_PC = majority_NC(Votes(votes.names, votes.labels, rows_PF))
    log_FCO = _tables(patterns, posterior_PC, settings)
    steps, converged = 0, False
    while not converged and steps < settings.steps:
        steps += 1
        if settings.balance == "estimated":
            share_C = 1 + patterns.counts_P @ posterior_PC
            balance_C = share_C / share_C.sum()
        changed_PC = _posterior(rows_PF, log_FCO, np.log(balance_C))
        converged = bool(np.abs(changed_PC - posterior_PC).max(initial=0.0) <= settings.tolerance)
        posterior_PC = changed_PC
        log_FCO = _tables(patterns, posterior_PC, settings)
    accuracies = dict(zip(votes.names, _accuracies_F(patterns, posterior_PC, settings).tolist(), strict=True))
    return Fitted(votes.labels, tuple(balance_C.tolist()), accuracies, kind_for(votes, settings), log_FCO, steps, converged)


def kind_for(votes: Votes, settings: LabelModel) -> Accuracies:
    """What the model estimates of each function: as asked, or as the votes allow.

    Raises:
        ConfigurationError: `symmetric` is asked for, and every function gives one label only.
    """
    several = [len(set(column_N.tolist()) - {ABSTAIN}) > 1 for column_N in votes.votes_NF.T if (column_N != ABSTAIN).any()]
    if settings.accuracies == "symmetric" and not any(several):
        hint = "Then only `class_conditional` can tell good ones from bad."
        raise ConfigurationError("every function gives one label only", where="model.accuracies", hint=hint)
    if settings.accuracies == "auto":
        return "symmetric" if all(several) else "class_conditional"
    return settings.accuracies


def _given_balance(settings: LabelModel, labels: tuple[str, ...]) -> np.ndarray:
    import numpy as np

    if not isinstance(settings.balance, dict):
        return np.full(len(labels), 1 / len(labels))
    for label in settings.balance:
        if label not in labels:
            problem = f"no function gives the label '{label}'"
            raise ConfigurationError(problem, where="model.balance", allowed=labels, given=label)
    missing = next((label for label in labels if label not in settings.balance), None)
    if missing is not None:
        raise ConfigurationError(
            f"says nothing of the label '{missing}'", where="model.balance", hint="Give a share for every label."
        )
    shares_C = np.array([settings.balance[label] for label in labels])
    return shares_C / shares_C.sum()


def _posterior(votes_NF: np.ndarray, log_FCO: np.ndarray, log_balance_C: np.ndarray) -> np.ndarray:
    import numpy as np

    # An abstention, -1, is the last column of every table.
    log_NC = np.tile(log_balance_C, (len(votes_NF), 1))
    for column_N, log_CO in zip(votes_NF.T, log_FCO, strict=True):
        log_NC += log_CO[:, column_N].T
    raised_NC = np.exp(log_NC - log_NC.max(axis=1, keepdims=True))
    return raised_NC / raised_NC.sum(axis=1, keepdims=True)


def _accuracies_F(patterns: _Patterns, posterior_PC: np.ndarray, settings: LabelModel) -> np.ndarray:
    """How often the votes of each function are right, the prior included."""
    import numpy as np

    votes_PF, counts_P = patterns
    voted_PF = votes_PF != ABSTAIN
    right_PF = np.take_along_axis(posterior_PC, np.where(voted_PF, votes_PF, 0), axis=1) * voted_PF
    believed = settings.prior_votes * settings.prior_accuracy
    return (counts_P @ right_PF + believed) / (counts_P @ voted_PF + settings.prior_votes)


def _tables(patterns: _Patterns, posterior_PC: np.ndarray, settings: LabelModel) -> np.ndarray:
    """log p(what each function does | label), the most probable one given the posterior and the prior."""
    import numpy as np

    labels = posterior_PC.shape[1]
    accuracies_F = _accuracies_F(patterns, posterior_PC, settings)
    log_FCO = np.zeros((len(accuracies_F), labels, labels + 1))
    for place, accuracy in enumerate(accuracies_F):
        log_FCO[place, :, :labels] = np.log(_spread_CC(accuracy, labels))
    if settings.accuracies == "class_conditional":
        for place, votes_P in enumerate(patterns.votes_PF.T):
            if (votes_P != ABSTAIN).any():
                log_FCO[place] = np.log(_table_CO(votes_P, patterns.counts_P, posterior_PC, settings))
    return log_FCO


def _table_CO(votes_P: np.ndarray, counts_P: np.ndarray, posterior_PC: np.ndarray, settings: LabelModel) -> np.ndarray:
    import numpy as np

    labels = posterior_PC.shape[1]
    done_PO = np.eye(labels + 1)[votes_P] * counts_P[:, None]
    rates_O = done_PO.sum(axis=0) / counts_P.sum()
    prior_CO = np.empty((labels, labels + 1))
    prior_CO[:, :labels] = labels * rates_O[:labels] * _spread_CC(settings.prior_accuracy, labels)
    prior_CO[:, labels] = np.maximum(1 - prior_CO[:, :labels].sum(axis=1), TIE)
    prior_CO = np.maximum(prior_CO, TIE) / np.maximum(prior_CO, TIE).sum(axis=1, keepdims=True)
    weight = settings.prior_votes / (1 - rates_O[labels])  # rows in which it votes that often
    found_CO = posterior_PC.T @ done_PO + weight * prior_CO
    return found_CO / found_CO.sum(axis=1, keepdims=True)


def _spread_CC(accuracy: float, labels: int) -> np.ndarray:
    """p(vote | label) of a function that votes: its accuracy on the diagonal, errors spread evenly."""
    import numpy as np

    return np.where(np.eye(labels, dtype=bool), accuracy, (1 - accuracy) / (labels - 1))
