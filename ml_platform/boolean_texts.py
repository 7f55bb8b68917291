"""Texts that are booleans, wherever only texts can be sent: CSV files at ingest, and CSV bodies of requests."""

# In lower case. "1.0" is how pandas writes 1 in a column with missing values.
BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
