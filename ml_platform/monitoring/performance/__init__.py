"""Performance: how good the answers were, by the labels that came later."""
