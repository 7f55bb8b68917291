"""Doctor: which settings a project has and why, what is wrong with its state, and what to do about it."""
