"""Floor 4: tasks, approaches, evaluation, the report."""
