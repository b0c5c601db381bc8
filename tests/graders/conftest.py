"""Rows for graders."""

from __future__ import annotations

import pytest

from tunewright.data.rows import PromptRow


@pytest.fixture
def row() -> PromptRow:
    """A sum, its answer in GSM8K's form, and a column beside."""
    return PromptRow(prompt="What is 1,000 + 234?", completion="Add them. #### 1,234", where="sums.jsonl:3", metadata={"level": 2})
