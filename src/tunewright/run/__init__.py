"""Floor 5: one run, from its bench to its report. `tunewright.finetune` tells the story; the rooms below do the work.

`workshop` sets everything up, `stages` are the parts of a run in order, `records` writes what is kept, `account` makes the report.
"""
