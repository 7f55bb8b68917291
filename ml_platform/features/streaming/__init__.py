"""Rolling views kept up to date by a stream: the state of their windows, and the timelines that serving reads."""
