"""Cost: what runs, models, callers and tables use, what that is worth, and the limits that it is held to."""
