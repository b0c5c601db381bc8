"""Floor 0: errors, strict configuration, the folder registry, seeds, run folders, units. Imports nothing of ours and no torch."""
