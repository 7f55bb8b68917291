"""Lineage to the column: from source files to served predictions and back."""
