"""The pages for people: what serves, how it does, and a form to try it. Nothing here is on the way of a prediction."""
