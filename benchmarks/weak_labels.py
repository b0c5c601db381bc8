"""Label model against majority vote on film reviews: `python benchmarks/weak_labels.py FOLDER`.

FOLDER holds the sentence polarity data (Pang and Lee 2005) as `train.jsonl` and `test.jsonl`: rows with `text` and `label`, 0 or 1.
The rules are `recipes/labels/films.yaml` and `films.py`; the labels of the test rows only measure.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tunewright.run.labelling import label

RULES = Path(__file__).resolve().parents[1] / "recipes/labels"
NAMES = {"0": "negative", "1": "positive"}


def main(folder: Path) -> None:
    """Print what the functions do and how often either way of joining them is right."""
    with tempfile.TemporaryDirectory() as place:
        for split in ("train", "test"):
            rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
            named = [{"text": row["text"], "label": NAMES[str(row["label"])]} for row in rows]
            (Path(place) / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
        rules = [RULES / "films.yaml", RULES / "films.py"]
        found = label(f"{place}/train.jsonl", rules, Path(place) / "out.jsonl", gold=f"{place}/test.jsonl", columns={})
        print(json.dumps(found.as_dict(), indent=1, default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
