"""Clusters of nearly equal texts, with MinHash and exact verification.

Texts are cut into shingles: five words each, or five characters where a text is short or has few spaces. Shingles that stand in
many texts (a template, a system prompt) say nothing about two of them and are left out, otherwise rows made from one template
would all be near duplicates. MinHash finds candidates, the exact Jaccard similarity decides: of the own shingles and of all.

Source: Broder 1997, On the resemblance and containment of documents.
Cost: about 70 microseconds a text of 60 shingles, in one process.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Shingles = NDArray[np.uint32]

WIDTH = 5  # words, or characters, a shingle
LONG = 60  # words from which on words are used
PERMUTATIONS = 64
LARGEST = 4096  # shingles kept of one text: the smallest hashes, which is the same sample for equal texts
FREQUENT = 0.05  # share of texts from which on a shingle is boilerplate
_PRIME = 0x01000193


def clusters(texts: Sequence[str], similarity: float) -> list[int]:
    """For each text the number of its cluster; does not depend on the order of the texts.

    Args:
        texts: with case and spacing evened out.
        similarity: the Jaccard similarity from which on two texts are one; 0 or 1 for equal texts only.
    """
    # Sorted by content and not by place: then a shuffled file has the same clusters.
    distinct = sorted(set(texts))
    number = {text: index for index, text in enumerate(distinct)}
    if not 0 < similarity < 1 or len(distinct) < 2:
        return [number[text] for text in texts]
    whole, own = _shingles(distinct)
    heads = _heads(whole, own, similarity)
    return [heads[number[text]] for text in texts]


def _heads(whole: list[Shingles], own: list[Shingles], similarity: float) -> list[int]:
    """For each text the index of the first one that it is similar to, among those that are similar to none before them."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(similarity))
    blank = MinHash(num_perm=PERMUTATIONS, hashfunc=int, scheme="affine32")
    heads = list(range(len(whole)))

    def similar(place: int, other: int) -> bool:
        # Both must hold: texts of one template differ in their own part, "how do I ..." and "can I ..." differ in the common one.
        return all(_jaccard(sets[place], sets[other]) >= similarity for sets in (own, whole))

    for place, shingles in enumerate(own):
        sketch = blank.copy()
        sketch.update_batch(shingles.tolist())
        near = [other for other in index.query(sketch) if isinstance(other, int) and similar(place, other)]
        # Only heads are in the index, so ten thousand copies of one text cost ten thousand comparisons and not their square.
        if near:
            heads[place] = min(near)
        else:
            index.insert(place, sketch, check_duplication=False)
    return heads


def _bands(similarity: float) -> tuple[int, int]:
    """Bands and rows a band such that a pair at the threshold is found with 97 %: `1 - (1 - s**r)**b`."""
    for rows in range(16, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - similarity**rows) ** bands >= 0.97:
            return bands, rows
    return PERMUTATIONS, 1


def _jaccard(left: Shingles, right: Shingles) -> float:
    import numpy as np

    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def _shingles(texts: Sequence[str]) -> tuple[list[Shingles], list[Shingles]]:
    """For each text the hashes of all its shingles, and of those that are not boilerplate."""
    import numpy as np

    words: dict[str, int] = {}
    whole = [_hashes(text, words) for text in texts]
    values, counts = np.unique(np.concatenate(whole), return_counts=True)
    frequent = values[counts > max(5, FREQUENT * len(texts))]
    return whole, [_without(shingles, frequent) for shingles in whole] if len(frequent) else whole


def _without(shingles: Shingles, frequent: Shingles) -> Shingles:
    import numpy as np

    places = np.minimum(np.searchsorted(frequent, shingles), len(frequent) - 1)
    own = shingles[frequent[places] != shingles]
    # A text that is nothing but boilerplate is compared whole.
    return own if len(own) >= 3 else shingles


def _hashes(text: str, words: dict[str, int]) -> Shingles:
    """The distinct hashes of a text's shingles, sorted. `words` remembers hashes of words."""
    import numpy as np

    parts = text.split()
    if len(parts) >= LONG and len(text) < 12 * len(parts):
        for word in parts:
            if word not in words:
                words[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        units = np.array([words[word] for word in parts], dtype=np.uint32)
    else:
        units = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if len(units) < WIDTH:
        return np.array([zlib.crc32(text.encode("utf-8", "surrogatepass"))], dtype=np.uint32)
    windows = len(units) - WIDTH + 1
    rolled = np.zeros(windows, dtype=np.uint32)
    for shift in range(WIDTH):
        # A rolling hash with the multiplier of FNV; the product is meant to wrap around.
        rolled = rolled * np.uint32(_PRIME) + units[shift : shift + windows]
        rolled ^= rolled >> np.uint32(15)
    found = np.unique(rolled)
    return found[:LARGEST]
