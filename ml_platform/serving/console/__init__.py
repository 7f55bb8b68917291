"""The web console: what serves, how well, and a form to try it. Predictions never wait for it."""
