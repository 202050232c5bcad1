"""What behaviour is asked about: aligned clean and corrupt prompts, their answers, and numbers from logits."""

from circuits.tasks.facts import fact_pairs, mini_facts, planted_pairs
from circuits.tasks.prompts import PromptPairs
from circuits.tasks.readers import Fact, read_autocircuit_json, read_eap_ig_csv, read_lre_json, read_rome_json
from circuits.tasks.repeats import repeated_tokens

from circuits.tasks.induction import induction  # isort: skip - after the modules, so that the name is the function

__all__ = [
    "Fact",
    "PromptPairs",
    "fact_pairs",
    "induction",
    "mini_facts",
    "planted_pairs",
    "read_autocircuit_json",
    "read_eap_ig_csv",
    "read_lre_json",
    "read_rome_json",
    "repeated_tokens",
]
