"""What behaviour is asked about: aligned clean and corrupt prompts, their answers, and numbers from logits."""

from circuits.tasks.behavioural.minimal_pairs import MinimalPair, minimal_pair_prompts, read_blimp_jsonl
from circuits.tasks.behavioural.scores import BehaviourScores
from circuits.tasks.behavioural.scoring import score_facts, score_minimal_pairs
from circuits.tasks.library.coreference import coreference_sentences
from circuits.tasks.library.docstring import docstring_metric
from circuits.tasks.library.facts import fact_pairs, mini_facts, planted_pairs
from circuits.tasks.library.grammar import grammar_pairs, grammar_sentences
from circuits.tasks.library.greater_than import greater_than_metric
from circuits.tasks.look import PromptReport, look_at_prompts
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.registry import TASKS, Task, task
from circuits.tasks.repeats import repeated_tokens
from circuits.tasks.sources.autocircuit import read_autocircuit_json
from circuits.tasks.sources.conllu import Sentence, Word, read_conllu
from circuits.tasks.sources.eap_ig import read_eap_ig_csv
from circuits.tasks.sources.facts import (
    Fact,
    read_counterfact_json,
    read_facts,
    read_function_vectors_json,
    read_lre_json,
    read_rome_json,
)
from circuits.tasks.sources.feature_circuits import read_feature_circuits_jsonl
from circuits.tasks.sources.known import KnownCircuit, known_circuit, known_for, precision_recall
from circuits.tasks.sources.mib_tasks import read_mib_json
from circuits.tasks.sources.readers import PromptFile, read_prompts

# isort: split
# After the modules, so that these names are the functions.
from circuits.tasks.library.agreement import agreement
from circuits.tasks.library.docstring import docstring
from circuits.tasks.library.gendered_pronouns import gendered_pronouns
from circuits.tasks.library.greater_than import greater_than
from circuits.tasks.library.induction import induction
from circuits.tasks.library.ioi import ioi
from circuits.tasks.library.multiple_choice import multiple_choice

__all__ = [
    "TASKS",
    "BehaviourScores",
    "Fact",
    "KnownCircuit",
    "MinimalPair",
    "PromptFile",
    "PromptPairs",
    "PromptReport",
    "Sentence",
    "Task",
    "Word",
    "agreement",
    "coreference_sentences",
    "docstring",
    "docstring_metric",
    "fact_pairs",
    "gendered_pronouns",
    "grammar_pairs",
    "grammar_sentences",
    "greater_than",
    "greater_than_metric",
    "induction",
    "ioi",
    "known_circuit",
    "known_for",
    "look_at_prompts",
    "mini_facts",
    "minimal_pair_prompts",
    "multiple_choice",
    "planted_pairs",
    "precision_recall",
    "read_autocircuit_json",
    "read_blimp_jsonl",
    "read_conllu",
    "read_counterfact_json",
    "read_eap_ig_csv",
    "read_facts",
    "read_feature_circuits_jsonl",
    "read_function_vectors_json",
    "read_lre_json",
    "read_mib_json",
    "read_prompts",
    "read_rome_json",
    "repeated_tokens",
    "score_facts",
    "score_minimal_pairs",
    "task",
]
