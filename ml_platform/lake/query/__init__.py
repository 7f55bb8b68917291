"""SQL over the lake: tables as views, old versions of them, and what SQL of a person may reach."""
