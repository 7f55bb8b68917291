"""How sure answers are: calibrated probabilities, conformal intervals and sets."""
