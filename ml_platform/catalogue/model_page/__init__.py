"""A page per model for people who do not code: what it predicts, how good that is, its limits, its week, who to ask."""
