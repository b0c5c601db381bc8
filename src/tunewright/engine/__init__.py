"""Floor 2: the engine. Forest attention, targets-only loss, optimizers, sampling, scoring, precision.

Everything above is written on a few primitives of `Engine`: `forward_backward`, `step`, `sample`, `score`, `state`, `restore`.
"""
