"""Splits: stratified by label, with groups, duplicates and equal inputs on one side, the same for every order of the file.

The draw for a row is a function of the seed and of the row's content, not of its place: rows added later do not reshuffle the
others' order, and a shuffled file gives the same splits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewright.core.errors import DataError
from tunewright.core.seeds import derive
from tunewright.data.cleaning import Pool
from tunewright.data.rows import JudgedRow, LabelRow, LabelsRow, Row

FEWEST = 10  # rows below which a share of them measures nothing


@dataclass(frozen=True)
class _Unit:
    """Rows that must stay together, in the order in which the seed draws them."""

    members: tuple[int, ...]
    draw: int
    label: str


def split(rows: Sequence[Row] | Pool, shares: Mapping[str, float], seed: int) -> dict[str, list[Row]]:
    """Divide rows into "train" and the splits of `shares`.

    Args:
        rows: the rows, or a pool of them where duplicates are known already.
        shares: the share of rows for each split beside "train", for example `{"validation": 0.1, "test": 0.1}`; 0 gives none.
        seed: the run's seed.

    Raises:
        DataError: there are too few rows, or too few that may stand on different sides.
    """
    pool = rows if isinstance(rows, Pool) else Pool(tuple(rows))
    wanted = {name: share for name, share in shares.items() if share > 0}
    result: dict[str, list[Row]] = {"train": list(pool.rows), **{name: [] for name in shares}}
    if not wanted:
        return result
    if len(pool.rows) < FEWEST:
        raise DataError(
            f"there are {len(pool.rows)} usable rows; at least {FEWEST} are needed to split off {' and '.join(wanted)}",
            where=_file_of(pool),
            hint="Add rows, give files of your own (`--data.validation`, `--data.test`), or set the shares to 0.",
        )
    units = _units(pool, seed)
    placed = _placed(units, wanted)
    _learn_every_label(pool, units, placed)
    _fill_empty(pool, units, placed, wanted)
    sides = {index: name for unit, name in zip(units, placed, strict=True) for index in unit.members}
    for name in result:
        result[name] = [row for index, row in enumerate(pool.rows) if sides[index] == name]
    return result


def _units(pool: Pool, seed: int) -> list[_Unit]:
    """Rows joined by an equal or nearly equal input, or by a group, however indirectly; sorted by label and draw."""
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    nodes: list[object] = [("side", side) for side in pool.sides]
    for row, node in zip(pool.rows, nodes, strict=True):
        if row.group is not None:
            parent[root(("group", row.group))] = root(node)
    members: dict[object, list[int]] = {}
    for index, node in enumerate(nodes):
        members.setdefault(root(node), []).append(index)
    units = []
    strata = _strata(pool)
    for together in members.values():
        counts = Counter(strata[i] for i in together if strata[i])
        label = min(counts, key=lambda name: (-counts[name], name), default="")
        draw = derive(seed, "split", min(pool.keys[i] for i in together))
        units.append(_Unit(tuple(together), draw, label))
    return sorted(units, key=lambda unit: (unit.label, unit.draw))


def _strata(pool: Pool) -> list[str]:
    """For each row what every split should have its share of: its label, or its set of labels where enough rows have the same."""
    sets = Counter(row.target_text() for row in pool.rows if isinstance(row, LabelsRow))
    # A set that few rows have would leave all of them in train; such rows are drawn from one pot.
    return [
        str(row.label)
        if isinstance(row, LabelRow | JudgedRow)
        else row.target_text()
        if isinstance(row, LabelsRow) and sets[row.target_text()] >= FEWEST
        else ""
        for row in pool.rows
    ]


def _placed(units: Sequence[_Unit], wanted: Mapping[str, float]) -> list[str]:
    """The split of each unit. What a label's share leaves over is carried on to the next label, so that sums come out right."""
    sizes: Counter[str] = Counter()
    for unit in units:
        sizes[unit.label] += len(unit.members)
    due = dict.fromkeys(wanted, 0.0)
    placed = []
    for place, unit in enumerate(units):
        if place == 0 or units[place - 1].label != unit.label:
            due = {name: due[name] + share * sizes[unit.label] for name, share in wanted.items()}
        # The last unit of a label stays in train: a label must be learned before it is measured.
        last = place + 1 == len(units) or units[place + 1].label != unit.label
        fits = [name for name in wanted if len(unit.members) <= due[name] + 1e-9]
        name = fits[0] if fits and not last else "train"
        if name in due:
            due[name] -= len(unit.members)
        placed.append(name)
    return placed


def _learn_every_label(pool: Pool, units: Sequence[_Unit], placed: list[str]) -> None:
    # Groups mix labels, so a label may stand in held-out groups only.
    known = set(_labels(pool, [i for unit, name in zip(units, placed, strict=True) if name == "train" for i in unit.members]))
    for place, unit in enumerate(units):
        inside = set(_labels(pool, unit.members))
        if placed[place] != "train" and not inside <= known:
            placed[place] = "train"
            known |= inside


def _labels(pool: Pool, members: Sequence[int]) -> Counter[str]:
    return Counter(label for index in members for label in pool.rows[index].classes() or ("",))


def _fill_empty(pool: Pool, units: Sequence[_Unit], placed: list[str], wanted: Mapping[str, float]) -> None:
    """Give a split that got nothing the smallest unit that train can spare."""
    for name in wanted:
        if name in placed:
            continue
        learned = _labels(pool, [i for unit, side in zip(units, placed, strict=True) if side == "train" for i in unit.members])
        spare = [
            place
            for place, unit in enumerate(units)
            if placed[place] == "train" and all(learned[label] > count for label, count in _labels(pool, unit.members).items())
        ]
        if not spare:
            largest = max(len(unit.members) for unit in units)
            raise DataError(
                f"nothing can be split off for {name}: the {len(pool.rows)} rows form {len(units)} sets that must stay together "
                f"(the largest has {largest} rows)",
                where=_file_of(pool),
                hint="Rows with one group, or with equal or nearly equal inputs, stay together: check `--data.group`, "
                "raise `--data.near_duplicates` (0 looks for equal inputs only), or give files of your own.",
            )
        placed[min(spare, key=lambda place: (len(units[place].members), units[place].draw))] = name


def _file_of(pool: Pool) -> str:
    return pool.rows[0].where.rsplit(":", 1)[0] if pool.rows else ""
