"""Who may do what: API keys, their roles and scopes."""
