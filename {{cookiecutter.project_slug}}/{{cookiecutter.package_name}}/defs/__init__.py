"""Sources and contracts, feature views, and one folder per model."""
