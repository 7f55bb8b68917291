"""The server's app as this project has it."""
