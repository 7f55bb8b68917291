"""Where raw tables come from: files, growing folders and databases, as their YAML declares them."""
