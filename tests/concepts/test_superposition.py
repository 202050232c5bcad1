"""Toy models of superposition: what they pack is known from geometry, and without a ReLU from PCA."""

from typing import Any

import pytest
import torch

from circuits.concepts import Superposition, toy_superposition
from circuits.errors import CircuitsError

QUICK: dict[str, Any] = {"steps": 500, "batch": 128, "seeds": 2}


def test_the_sparser_the_more_is_packed_and_five_in_two_make_a_pentagon() -> None:
    found = toy_superposition(sparsities=(0.0, 0.9), kinds=("relu",), **QUICK)
    assert found.represented.tolist()[0][1] == 5 and float(found.packed[0, 0]) < 3 < 5 < float(found.packed[0, 1])
    assert found.dimensionality[0, 1].tolist() == pytest.approx([0.4] * 5, abs=0.01)
    W = found.best[0, 1]
    angles = torch.atan2(W[1], W[0]).sort().values
    assert angles.diff().tolist() == pytest.approx([2 * torch.pi / 5] * 4, abs=0.1)


def test_four_in_two_make_antipodal_pairs() -> None:
    found = toy_superposition(features=4, sparsities=(0.9,), kinds=("relu",), **QUICK)
    assert found.dimensionality[0, 0].tolist() == pytest.approx([0.5] * 4, abs=0.01)
    W = found.best[0, 0]
    cosines = (W.T @ W) / (W.norm(dim=0)[:, None] * W.norm(dim=0))
    assert sorted(cosines.min(dim=1).values.tolist()) == pytest.approx([-1.0] * 4, abs=0.01)


def test_without_a_relu_it_is_pca() -> None:
    """Of features as important as 1, 1/2, 1/4, 1/8 two are kept; the loss is the variance of the others, by importance."""
    chances = (0.0, 0.5, 0.9)
    found = toy_superposition(features=4, sparsities=chances, decay=0.5, kinds=("linear",), **QUICK)
    kept = torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    assert (found.norms[0] - kept).abs().max() < 0.02 and (found.packed <= 2.02).all()
    for place, chance in enumerate(chances):
        variance = (1 - chance) / 3 - (1 - chance) ** 2 / 4
        assert found.loss[0, place].tolist() == pytest.approx([variance * (0.25 + 0.125)] * 2, rel=0.05)


def test_each_model_is_trained_as_it_would_be_alone() -> None:
    few: dict[str, Any] = {"features": 4, "steps": 30, "batch": 16, "seed": 5}
    whole = toy_superposition(sparsities=(0.2, 0.9), seeds=3, **few)
    for kind, name in enumerate(whole.kinds):
        for place, chance in enumerate(whole.sparsity.tolist()):
            alone = toy_superposition(sparsities=(chance,), kinds=(name,), seeds=1, **few)
            torch.testing.assert_close(whole.W[kind, place, 0], alone.W[0, 0, 0], atol=1e-5, rtol=0)
            torch.testing.assert_close(whole.loss[kind, place, 0], alone.loss[0, 0, 0], atol=1e-5, rtol=0)


def test_dimensionality_is_that_of_the_definition() -> None:
    W = torch.randn(1, 1, 1, 3, 6, generator=torch.Generator().manual_seed(0)).double()
    like = {"sparsity": torch.zeros(1).double(), "importance": torch.ones(6).double(), "b": torch.zeros(1, 1, 1, 6).double()}
    found = Superposition(("relu",), W=W, loss=torch.zeros(1, 1, 1).double(), steps=1, batch=1, seed=0, **like)
    columns = W[0, 0, 0].T
    for feature, own in enumerate(columns):
        overlap = sum(float((own / own.norm()) @ other) ** 2 for other in columns)
        assert float(found.dimensionality[0, 0, feature]) == pytest.approx(float(own @ own) / overlap)
    table = found.to_dataframe()
    assert len(table) == 6 and table["packed"].iloc[0] == pytest.approx(float(W.square().sum()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": 2, "hidden": 3}, "no more dimensions than features"),
        ({"sparsities": (1.0,)}, "sparsity 1.0: expected"),
        ({"sparsities": ()}, "expected chances"),
        ({"decay": 0.0}, "importance falls by 0.0"),
        ({"kinds": ("gelu",)}, "kind gelu: expected relu, linear"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict, words: str) -> None:
    with pytest.raises(CircuitsError, match=words):
        toy_superposition(**options)
