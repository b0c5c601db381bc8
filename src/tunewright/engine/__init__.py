"""Floor 2: the engine. Nothing is computed twice, and nothing that is not used.

Everything above is written on a few primitives: `Engine.forward_backward`, `Engine.step`, `Engine.score`, `sampling.sample`,
`scoring.score_continuations`, and an optimizer's `state` and `restore`.
"""
