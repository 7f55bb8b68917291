"""The console, pages for people: what serves, how well, and a form to try it. Predictions never wait for it."""
