"""From rows to a logged answer: scores, explanations, and the prediction routes."""
