"""Sources of messages and sinks of answers, with positions by which a reader goes on after a kill."""
