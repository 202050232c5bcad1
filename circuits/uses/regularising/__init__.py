"""Training that is held to what people say of words, and tests of whether it helps."""

from circuits.uses.regularising.er_test import FunctionalTest, er_test, functional_tests
from circuits.uses.regularising.guidance import Guidance, wishes_of
from circuits.uses.regularising.penalty import Regularisation, train_regularised
from circuits.uses.regularising.results import ErTest

__all__ = [
    "ErTest",
    "FunctionalTest",
    "Guidance",
    "Regularisation",
    "er_test",
    "functional_tests",
    "train_regularised",
    "wishes_of",
]
