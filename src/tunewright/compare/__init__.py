"""Floor 6: several ways to the same end, measured side by side on one task.

`methods` tunes one base by several methods, several times each; `trial` is one of these runs, in a process of its own so that its
peak memory is its own; `costs` measures what a finished run costs its user; `page` shows the outcome.
"""
