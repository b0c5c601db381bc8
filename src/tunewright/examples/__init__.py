"""Example data that ships with the package: `quickstart.jsonl` (prompt and completion) and `reviews.jsonl` (text and label).

Both are written by ``recipes/embedded_base/quickstart.py`` from a made-up town; no person or shop in them exists. `town.txt` is
text of that town which the embedded base has not read, `general.txt` plain English of our own: what a tuning should not unlearn.
"""

from pathlib import Path


def path(name: str) -> Path:
    """The path of one example file, such as ``"quickstart.jsonl"``.

    Raises: FileNotFoundError, naming the files there are, where `name` is none of them.
    """
    folder = Path(__file__).parent
    names = sorted(file.name for file in folder.iterdir() if file.suffix in (".jsonl", ".txt"))
    if name not in names:
        raise FileNotFoundError(f"no example data {name!r}; there are: {', '.join(names)}")
    return folder / name
