"""Write the held-out text of the embedded base's own world: ``python recipes/embedded_base/general.py``.

`town.txt` holds documents that the base was not pre-trained on, from the same town and the same generator: what a tuning must not
unlearn. A paragraph a line.
"""

from pathlib import Path

from pretrain import HELD_OUT, Settings
from stories import documents
from world import World

HOME = Path(__file__).resolve().parents[2] / "src/tunewright/examples"
FIRST = HELD_OUT + 1_000_000  # beyond the documents that pre-training's own held-out loss is measured on
DOCUMENTS = 60


def main() -> None:
    """Write `town.txt`."""
    world = World(Settings.seed)
    lines = [" ".join(text.split()) for text in documents(world, Settings.seed, FIRST, DOCUMENTS)]
    (HOME / "town.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
