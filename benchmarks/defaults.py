"""Are the default learning rates good? `python benchmarks/defaults.py DATA --base minilm --methods lora,loreft [--out FILE]`.

Each method is run at its default rate and then at rates that are 3, 9, 27 ... times as high while that is better; where the first
step up is not, at lower ones likewise. Everything else stays as it is. Judged on validation rows, so that the test rows of a later
comparison have chosen nothing. A default is good where it is within 2 points of the best. With `--rows` and `--validation-rows`,
that many rows are drawn from DATA with a fixed seed. What stands in `--out` is not run again.

With `--default-rate` no other rate is tried: for settings of one method side by side, such as ranks and initialisations
(`--methods '[{name: lora, rank: 4}, {name: lora, rank: 64}]'`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CLOSE = 0.02
FURTHEST = 4  # steps of a factor of 3 on each side
TESTED = 20  # rows of the test split, which nobody looks at here


class Sweep(NamedTuple):
    """What is run.

    Args:
        title: the method's name, with its settings where it has some.
        words: everything behind `tunewright tune` but the learning rate and the name.
        monitor: the measure that is compared, on validation.
        furthest: steps of a factor of 3 on each side of the default rate, at most.
    """

    title: str
    words: tuple[str, ...]
    monitor: str
    folder: Path
    furthest: int = FURTHEST

    def quality(self, rate: float | None) -> tuple[float, float | None]:
        """One run: its learning rate (the default one for None), and its best validation value; None where it diverged."""
        from tunewright.cli.flags import parse
        from tunewright.core.errors import DivergedError
        from tunewright.finetune import finetune

        place = self.folder / re.sub(r"[^\w.-]+", "-", f"{self.title} {rate}")
        words = [*self.words, "--folder", str(place.parent), "--name", place.name, "--training.monitor", self.monitor]
        run = parse(words if rate is None else [*words, "--learning-rate", str(rate)]).run()
        try:
            finetune(run)
        except DivergedError:
            return rate or 0.0, None
        settled = yaml.safe_load((place / "run.yaml").read_text())["training"]["learning_rate"]
        steps = [json.loads(line) for line in (place / "steps.jsonl").read_text().splitlines()]
        found = [step["validation"][self.monitor] for step in steps if self.monitor in step["validation"]]
        return settled, (min if self.monitor == "loss" else max)(found, default=None)

    def better(self, one: float | None, other: float | None) -> bool:
        """Whether `one` is the better value."""
        if one is None or other is None:
            return one is not None
        return one < other if self.monitor == "loss" else one > other

    def row(self) -> dict[str, Any]:
        """The method at its rates, from low to high."""
        began = time.perf_counter()
        default, value = self.quality(None)
        found = {0: value}
        best, power = 0, 1
        while abs(power) <= self.furthest and power not in found:
            found[power] = self.quality(float(f"{default * 3.0**power:.2g}"))[1]
            if self.better(found[power], found[best]):
                best, power = power, power + (1 if power > 0 else -1)
            else:
                power = -1 if best == 0 else power
        row = {"method": self.title, "default_rate": default, "best_rate": float(f"{default * 3.0**best:.2g}")}
        row |= {"default": value, "best": found[best], "seconds": round(time.perf_counter() - began)}
        row["validation"] = {f"{default * 3.0**power:.2g}": found[power] for power in sorted(found)}
        highest = found[best]
        return row | {"close": value is not None and highest is not None and abs(highest - value) <= CLOSE}


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--methods", default="lora,bottleneck_adapter,prompt_tuning,loreft,selective,full")
    parser.add_argument("--monitor", default="accuracy", help="the measure that is compared, on validation")
    parser.add_argument("--rows", type=int, help="training rows, drawn from DATA; all but those of the splits when not given")
    parser.add_argument("--validation-rows", type=int, default=600, help="with --rows: validation rows, drawn from DATA")
    parser.add_argument("--jobs", type=int, default=1, help="methods at once, one thread each")
    parser.add_argument("--default-rate", action="store_true", help="try no other rate")
    parser.add_argument("--out", type=Path)
    parser.epilog = "Flags of `tunewright tune` may follow behind --"
    words = [*sys.argv[1:], "--"]
    ours = words.index("--")
    return parser.parse_args(words[:ours], argparse.Namespace(settings=words[ours + 1 : -1]))


def drawn(one: argparse.Namespace, folder: Path) -> list[str]:
    """The data as flags: DATA itself, or three files with rows drawn from it (JSON lines)."""
    if one.rows is None:
        return [one.data]
    lines = Path(one.data).read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    flags = list[str]()
    for flag, count in (("--data.train", one.rows), ("--data.validation", one.validation_rows), ("--data.test", TESTED)):
        path = folder / f"{flag.removeprefix('--data.')}.jsonl"
        path.write_text("".join(lines[:count]), encoding="utf-8")
        lines = lines[count:]
        flags += [flag, str(path)]
    return flags


def sweeps(one: argparse.Namespace, folder: Path) -> list[Sweep]:
    """One for each method."""
    text = one.methods if one.methods.startswith("[") else f"[{one.methods}]"
    common = [*drawn(one, folder), "--base", one.base, "--threads", "1", *one.settings]
    found = []
    for method in yaml.safe_load(text):
        settings = dict(method) if isinstance(method, dict) else {"name": method}
        name = settings.pop("name")
        flags = [
            part
            for key, value in settings.items()
            for part in (f"--method.{key}", value if isinstance(value, str) else json.dumps(value))
        ]
        title = " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
        found.append(Sweep(title, (*common, "--method", name, *flags), one.monitor, folder, 0 if one.default_rate else FURTHEST))
    return found


def main() -> None:
    """Sweep all methods, print a line each, and keep them."""
    one = asked()
    kept = json.loads(one.out.read_text())["rows"] if one.out is not None and one.out.is_file() else []
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(one.jobs, multiprocessing.get_context("spawn")) as pool:
        wanted = [sweep for sweep in sweeps(one, Path(place)) if sweep.title not in [row["method"] for row in kept]]
        for row in pool.map(Sweep.row, wanted):
            kept.append(row)
            shown = "  ".join(f"{rate}: {'-' if value is None else f'{value:.3f}'}" for rate, value in row["validation"].items())
            apart = "" if row["close"] else f"  <- {row['default_rate']:.2g} is not within 2 points"
            print(f"{row['method']:28} {shown}{apart}", flush=True)
            if one.out is not None:
                drawn_rows = None if one.rows is None else {"train": one.rows, "validation": one.validation_rows}
                facts = {"data": "/".join(Path(one.data).parts[-2:]), "base": one.base, "monitor": one.monitor}
                facts |= {"drawn_rows": drawn_rows, "settings": " ".join(one.settings)}
                one.out.write_text(json.dumps({**facts, "rows": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
