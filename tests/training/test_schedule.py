import pytest
import torch
from transformers import get_scheduler

from tunewright.training.schedule import factor


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (10, 0), (10, 3), (37, 5), (5, 5), (200, 10)])
def test_the_course_is_that_of_transformers(kind: str, total: int, warmup: int):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler("constant_with_warmup" if kind == "constant" else kind, optimizer, warmup, total)
    for step in range(total):
        assert factor(step, total, kind, warmup) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_it_needs_no_history(kind: str):
    forward = [factor(step, 50, kind, 5) for step in range(50)]
    assert forward == [factor(step, 50, kind, 5) for step in reversed(range(50))][::-1]
    assert max(forward) == 1
    assert min(forward) >= 0
