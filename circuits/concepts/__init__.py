"""What users mean by a word: as a direction that an answer may hang on, and as what neurons answer to; features that are not
neurons."""

from circuits.concepts.branches.equivariance import equivariance, swapped
from circuits.concepts.branches.results import Equivariance, Specialisation
from circuits.concepts.branches.specialisation import specialise
from circuits.concepts.feature_nodes.attributing import attribute_features
from circuits.concepts.feature_nodes.building import attribution_graph
from circuits.concepts.feature_nodes.circuit import FeatureCircuit
from circuits.concepts.feature_nodes.finding import find_feature_circuit
from circuits.concepts.feature_nodes.graph import AttributionGraph, GraphNode
from circuits.concepts.feature_nodes.neuronpedia import read_graph_file, save_graph_file
from circuits.concepts.feature_nodes.scores import FeatureScores
from circuits.concepts.features.dictionary import Dictionary
from circuits.concepts.features.readable import read_features
from circuits.concepts.features.reading import read_dictionary
from circuits.concepts.features.reports import DictionaryReport, FeatureReport
from circuits.concepts.features.results import Superposition
from circuits.concepts.features.single import read_feature
from circuits.concepts.features.toy import toy_superposition
from circuits.concepts.features.training import train_dictionary
from circuits.concepts.forms import NeuronForm, NeuronForms, Units, compose, read_lexicon
from circuits.concepts.results import ConceptCurve, ConceptTest
from circuits.concepts.tcav import tcav
from circuits.concepts.texts import as_examples, random_examples, read_examples

__all__ = [
    "AttributionGraph",
    "ConceptCurve",
    "ConceptTest",
    "Dictionary",
    "DictionaryReport",
    "Equivariance",
    "FeatureCircuit",
    "FeatureReport",
    "FeatureScores",
    "GraphNode",
    "NeuronForm",
    "NeuronForms",
    "Specialisation",
    "Superposition",
    "Units",
    "as_examples",
    "attribute_features",
    "attribution_graph",
    "compose",
    "equivariance",
    "find_feature_circuit",
    "random_examples",
    "read_dictionary",
    "read_examples",
    "read_feature",
    "read_features",
    "read_graph_file",
    "read_lexicon",
    "save_graph_file",
    "specialise",
    "swapped",
    "tcav",
    "toy_superposition",
    "train_dictionary",
]
