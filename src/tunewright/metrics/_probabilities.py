"""What the metrics of probabilities share: texts as probabilities and what happened.

Shape suffixes: N rows, J judgements of all rows, B bins, R sets of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import check_rows

UNSURE = 0.5


def judgements(answers: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How sure each judgement was, whether it was right (1 or 0), and the row it belongs to: `[J]` each.

    A row holds one probability or several with spaces between, and the reference says for each whether what it is the probability
    of was so. A probability below one half is that of the opposite, which then was judged. A row whose answer is no such list
    says nothing: one half each.

    Raises:
        ValueError: as `check_rows` does, and where a reference is not 0 or 1.
    """
    check_rows(answers, references)
    said, happened, rows = [], [], []
    for row, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        wanted = reference.split()
        if not wanted or not set(wanted) <= {"0", "1"}:
            raise ValueError(f"a reference of probabilities is 0 or 1, it is '{reference[:40]}'")
        own = _parsed(answer)
        said += own if len(own) == len(wanted) else [UNSURE] * len(wanted)
        happened += [float(one) for one in wanted]
        rows += [row] * len(wanted)
    said_J, happened_J = np.array(said), np.array(happened)
    opposite_J = said_J < UNSURE
    sure_J = np.where(opposite_J, 1 - said_J, said_J)
    return sure_J, np.where(opposite_J, 1 - happened_J, happened_J), np.array(rows)


def _parsed(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split()]
    except ValueError:
        return []
    return found if all(0 <= one <= 1 for one in found) else []
