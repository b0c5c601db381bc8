"""Decoding over the forest: what prompts share is computed once and kept once, however many samples continue it.

Shape suffixes: A rows in the batch, B prompts, T tokens of the prefill, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tunewright.engine.engine import Engine
from tunewright.engine.head import LanguageHead
from tunewright.engine.places import at, nowhere, of_prompt
from tunewright.engine.sampling.padded import lanes_of
from tunewright.engine.sampling.prompts import Prompt
from tunewright.engine.sampling.store import Store
from tunewright.models.lanes import Places

WORTH_SHARING = 16  # tokens from which a common beginning becomes a root of its own


def common(prompts: Sequence[Prompt], edge: int = 0) -> int:
    """Tokens that all prompts begin with, if it pays to keep them apart; every prompt keeps at least one token of its own.

    Prompts of different tunings share nothing: their keys differ.

    Args:
        edge: how many of a prompt's last tokens the tuning tells apart (`Lanes.edges`); these are its own too.
    """
    first = prompts[0]
    if len(prompts) == 1 or any(prompt.tuning != first.tuning for prompt in prompts):
        return 0
    shortest = min(len(prompt.tokens) for prompt in prompts)
    virtual = next((place for place, token in enumerate(first.tokens) if token >= 0), shortest)
    most = min(shortest - 1, max(shortest - edge, virtual))
    low, high = min(prompt.tokens for prompt in prompts), max(prompt.tokens for prompt in prompts)
    equal = next((place for place in range(most) if low[place] != high[place]), most)
    return equal if equal >= WORTH_SHARING or first.tokens[0] < 0 else 0  # virtual tokens are shared however few they are


class ForestDecoder:
    """Rows behind shared prompts: `read` the prompts once, then `seat` rows behind them and continue these, as often as needed.

    Args:
        prompts: each once; equal tunings stand together.
        head: the language head.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Prompt], head: LanguageHead) -> None:
        self._engine, self._prompts, self._head = engine, prompts, head
        self._body: nn.Module = engine.model.body
        self._edges = engine.model.lanes.edges
        self._root = common(prompts, self._edges.get(prompts[0].tuning, 0))
        self._store = Store([len(prompt.tokens) for prompt in prompts], self._root, engine.device)
        self._owners: list[int] = []
        self._written = 0

    def read(self) -> None:
        """Compute and keep what the prompts hold.

        Raises:
            ForestUnsupportedError: the family asks attention for something that is not computed here.
        """
        root, device = self._root, self._engine.device
        tokens = [*self._prompts[0].tokens[:root], *(token for prompt in self._prompts for token in prompt.tokens[root:])]
        positions = [*range(root), *(place for prompt in self._prompts for place in range(root, len(prompt.tokens)))]
        tunings = [self._prompts[0].tuning] * root
        for prompt in self._prompts:
            tunings += [prompt.tuning] * (len(prompt.tokens) - root)
        fed_1T = torch.tensor([tokens], device=device)
        with self._engine.model.lanes.during(lanes_of(tunings, 1), places=self._places_of(fed_1T)):
            hidden_TD = self._hidden(fed_1T, torch.tensor([positions], device=device))
        self._first_BV = self._head.logits(hidden_TD[self._store.lasts_B]).float()

    def _places_of(self, fed_1T: Tensor) -> Places | None:
        """Where the tokens of the prefill stand in their prompts; None where no tuning on the base asks."""
        if not self._edges:
            return None
        root, *others = [of_prompt(prompt.tokens) for prompt in (self._prompts[0], *self._prompts)]
        counted = sum(token >= 0 for token in self._prompts[0].tokens[: self._root])
        own = [(ahead[counted:], behind[counted:]) for ahead, behind in others]
        return at(fed_1T, [(root[0][:counted], root[1][:counted]), *own])

    def seat(self, owners: Sequence[int]) -> None:
        """Rows with nothing written yet stand behind the prompts, in place of those that stood there.

        Args:
            owners: for each row, the number of its prompt; equal ones stand together, and no prompt is left out.
        """
        self._owners, self._written = list(owners), 0
        self._store.seat(owners)
        self._place()

    def _place(self) -> None:
        device = self._engine.device
        self._lanes = lanes_of([self._prompts[owner].tuning for owner in self._owners], 1)
        self._nowhere = nowhere(len(self._owners), device) if self._edges else None
        self._ends_1A = torch.tensor([[len(self._prompts[owner].tokens) for owner in self._owners]], device=device)

    def start(self) -> Tensor:
        """Logits [A, V] behind the prompts."""
        return self._first_BV[torch.tensor(self._owners, device=self._engine.device)]

    def next(self, tokens: Sequence[int]) -> Tensor:
        """Logits [A, V] behind one more token of every row."""
        self._store.advance()
        with self._engine.model.lanes.during(self._lanes, places=self._nowhere):
            fed_1A = torch.tensor([tokens], device=self._engine.device)
            hidden_AD = self._hidden(fed_1A, self._ends_1A + self._written)
        self._written += 1
        return self._head.logits(hidden_AD).float()

    def keep(self, chosen: Sequence[int]) -> None:
        """Only these rows go on."""
        self._owners = [self._owners[number] for number in chosen]
        self._store.keep(self._owners, chosen)
        self._place()

    def _hidden(self, tokens_1T: Tensor, positions_1T: Tensor) -> Tensor:
        positions_1T = positions_1T + self._engine.position_offset
        output = self._body(input_ids=tokens_1T, position_ids=positions_1T, decode=self._store, use_cache=False)
        return output.last_hidden_state[0]
