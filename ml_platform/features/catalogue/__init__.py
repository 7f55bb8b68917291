"""The catalogue of features: views, their users, and the state of their rows."""
