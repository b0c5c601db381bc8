import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from tunewright.engine.virtual import entry
from tunewright.evaluation.virtual_words import clusters, nearest_words, silhouette
from tunewright.testing.tiny import tiny


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_vector_is_nearest_to_the_word_that_it_is(family: str):
    model = tiny(family)
    words = model.tokenizer("Yes!", add_special_tokens=False)["input_ids"]
    vectors = entry(model)(torch.tensor(words)).detach()
    found = nearest_words(model, vectors * 3, 4)
    assert [own[0].id for own in found] == words
    assert "".join(own[0].text for own in found) == "Yes!"
    assert all(own[0].cosine == pytest.approx(1) for own in found)
    assert all(own[number].cosine >= own[number + 1].cosine for own in found for number in range(3))


def test_ids_without_a_token_are_no_words():
    model = tiny("llama")
    (own,) = nearest_words(model, entry(model).weight.detach()[280:281], 1000)
    assert len(own) == 261
    assert max(word.id for word in own) == 260


def test_groups_are_found_and_beat_random_directions():
    centres = drawn(3, 16) * 3
    vectors = centres.repeat_interleave(5, dim=0) + 0.1 * drawn(15, 16, seed=1)
    found = clusters(vectors, draws=59)
    assert found is not None
    assert found.of == (0,) * 5 + (1,) * 5 + (2,) * 5
    assert found.count == 3
    assert found.silhouette > 0.9 > found.high >= found.random >= found.low
    assert found.p == pytest.approx(1 / 60)
    assert "tighter than chance" in found.sentence
    assert clusters(vectors, draws=59) == found
    assert clusters(vectors, draws=59, seed=1) != found


def test_random_vectors_are_no_tighter_than_random_vectors():
    values = []
    for seed in range(8):
        found = clusters(drawn(12, 16, seed=seed) * (1 + torch.arange(12)[:, None]), draws=39)
        assert found is not None
        values.append(found.p)
    assert sum(value < 0.1 for value in values) <= 3
    assert max(values) > 0.3


def test_what_cannot_be_grouped():
    assert clusters(drawn(3, 8)) is None
    assert clusters(torch.ones(6, 8)) is None


@pytest.mark.parametrize("count", [2, 3, 7])
def test_silhouettes_are_those_of_scikit_learn(count: int):
    vectors = drawn(12, 5, seed=count).numpy().astype(np.float64)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    labels = np.arange(12) % count
    labels[:count] = np.arange(count)
    labels[labels == count - 1] = 0
    labels[-1] = count - 1  # one that is alone
    assert silhouette(distances, labels) == pytest.approx(silhouette_score(distances, labels, metric="precomputed"), abs=1e-12)
