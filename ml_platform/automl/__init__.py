"""AutoML: from a table, or a model's training set, to a leaderboard whose every trial is a notebook of plain code."""
