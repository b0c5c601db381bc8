"""The frozen prefix: what stands below the lowest trained block is a constant of the row, so it is computed once and kept.

`cut` finds that block and runs the two sides of it; `key` names everything that the states depend on; `store` keeps them in
memory-mapped files; `frozen` is what the engine holds. Blocks below the cut always run in evaluation mode and without a graph,
with or without a cache: with dropout, what they give would be no constant.
"""
