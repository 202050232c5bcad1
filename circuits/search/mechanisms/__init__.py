"""Known mechanisms searched for by their own signs: induction, factual recall."""
