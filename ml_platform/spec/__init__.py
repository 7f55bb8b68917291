"""What a model's `defs.yaml` declares: every key with its type, default and meaning."""
