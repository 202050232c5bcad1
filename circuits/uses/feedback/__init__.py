"""What people say of a classifier's explanations, and what it changes."""

from circuits.uses.feedback.applying import apply_feedback, proposed
from circuits.uses.feedback.items import Feedback, FeedbackItem
from circuits.uses.feedback.results import FeedbackEffects, WordChange

__all__ = ["Feedback", "FeedbackEffects", "FeedbackItem", "WordChange", "apply_feedback", "proposed"]
