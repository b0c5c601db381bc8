"""Floor 7: contract tests and tiny models, shipped so that plug-ins of third parties are tested as ours are."""
