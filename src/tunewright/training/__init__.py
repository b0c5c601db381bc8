"""Floor 4: the one loop and what wraps around it.

`fit` is a generator of steps; validation, early stopping, keeping the best and checkpoints are generators around it that compose
like `itertools`. Nothing here knows a method, an objective or a report.
"""
