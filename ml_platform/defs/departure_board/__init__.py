"""The feature service departure_board: what is known of a flight, its aircraft and its airport."""
