"""Training sets: spine, labels and features as of each row's timestamp, and what is checked of them."""
