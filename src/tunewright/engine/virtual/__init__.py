"""Virtual tokens: vectors, or keys and values, of a tuning that stand in front of its texts.

They are negative token ids, so whatever counts, packs, shares and caches tokens takes them for what they are: the beginning of a
row. `entrance` gives the tuning's vectors in place of the embedding at those ids, `modules` are what the vectors come from, and
`keys` is the prefix of prefix tuning: keys and values of every block in place of those that the virtual tokens would have.

Shape suffixes: B sequences, T tokens, N virtual tokens in a batch, P virtual tokens of a tuning, D width of the embedding, K key
heads, W head width, L blocks.
"""

from tunewright.engine.virtual.entrance import Entrance, Virtual, entry, ids_of, mount, unmount

__all__ = ["Entrance", "Virtual", "entry", "ids_of", "mount", "unmount"]
