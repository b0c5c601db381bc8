"""Are the default learning rates good? `python benchmarks/defaults.py DATA --base minilm --methods lora,loreft [--out FILE]`.

Each method is run at its default rate times 1/10, 1/3, 1, 3 and 10, everything else as it is. Judged on validation rows, so that
the test rows of a later comparison have chosen nothing. A default is good where it is within 2 points of the best of the five.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
CLOSE = 0.02


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--methods", default="lora,bottleneck_adapter,prompt_tuning,loreft,selective,full")
    parser.add_argument("--monitor", default="accuracy", help="the measure that is compared, on validation")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", help="more flags of `tunewright tune`, behind --")
    return parser.parse_args()


def rate_of(one: argparse.Namespace, method: str) -> float:
    """The default learning rate of a method for this base and these data, as a run would choose it."""
    words = ["estimate", one.data, "--base", one.base, "--method", method, "--json", *one.settings]
    return float(json.loads(_tunewright(words))["reasons"]["training.learning_rate"].split(":")[0])


def _tunewright(words: list[str]) -> str:
    code = "import sys; from tunewright.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
    return done.stdout


def quality(one: argparse.Namespace, method: str, rate: float, folder: Path) -> float | None:
    """The best validation value of one run; None where it diverged."""
    name = f"{method}-{rate:.3g}"
    words = ["tune", one.data, "--base", one.base, "--method", method, "--learning-rate", str(rate), "--threads", "1"]
    words += ["--folder", str(folder), "--name", name, "--monitor", one.monitor, *one.settings]
    try:
        _tunewright(words)
    except RuntimeError:
        return None
    steps = [json.loads(line) for line in (folder / name / "steps.jsonl").read_text().splitlines()]
    return max((step["validation"][one.monitor] for step in steps if one.monitor in step["validation"]), default=None)


def swept(one: argparse.Namespace, method: str, folder: Path) -> dict[str, Any]:
    """One method at all rates."""
    rate = rate_of(one, method)
    found = {factor: quality(one, method, rate * factor, folder) for factor in FACTORS}
    best = max(value for value in found.values() if value is not None)
    default = found[1.0]
    row = {"method": method, "default_rate": rate, "validation": {str(factor): value for factor, value in found.items()}}
    row |= {"best": best, "default": default, "close": default is not None and best - default <= CLOSE}
    shown = "  ".join("   -" if value is None else f"{100 * value:4.1f}" for value in found.values())
    print(f"{method:20} {rate:9.2g}  {shown}  {'' if row['close'] else '<- default is not within 2 points'}", flush=True)
    return row


def main() -> None:
    """Sweep all methods and print a line each."""
    one = asked()
    print(f"{'method':20} {'rate':>9}  {'  '.join(f'x{factor:<3g}' for factor in FACTORS)}   ({one.monitor} on validation, %)")
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(one.jobs) as pool:
        rows = list(pool.map(lambda method: swept(one, method, Path(place)), one.methods.split(",")))
    if one.out is not None:
        one.out.write_text(json.dumps({"data": Path(one.data).name, "base": one.base, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
