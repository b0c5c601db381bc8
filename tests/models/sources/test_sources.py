"""The battery of every source, and the names that none of them knows."""

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.loading import load
from tunewright.models.sources import Source, all_sources, resolve, room


def test_every_file_is_a_source_with_an_order_of_its_own():
    sources = all_sources()
    assert (
        {room.name_of(source) for source in sources}
        == set(room.names())
        >= {"embedded", "minilm", "folder", "run", "adapter", "hub"}
    )
    assert len({source.order for source in sources}) == len(sources)


@pytest.mark.parametrize("source", all_sources(), ids=room.name_of)
def test_names_are_claimed_by_their_source_alone(source: Source):
    for name in source.names:
        assert [room.name_of(other) for other in all_sources() if other.claims(name)] == [room.name_of(source)]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("embeded", "Did you mean 'embedded'?"),
        ("mini-lm", "Did you mean 'minilm'?"),
        ("llama", "Allowed: embedded, minilm, a folder, a run folder, a hub id (owner/name)"),
        ("", "cannot be the name of a base"),
        ("  ", "cannot be the name of a base"),
        ("a\0b", "cannot be the name of a base"),
        ("x" * 5000, "cannot be the name of a base"),
    ],
)
def test_names_that_no_source_knows(base: str, message: str):
    with pytest.raises(BaseModelError) as caught:
        resolve(base)
    assert message in str(caught.value)
    with pytest.raises(BaseModelError):
        load(base)
