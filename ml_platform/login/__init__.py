"""One sign-in in front of Dagster's UI, MLflow's and the console: accounts, sessions, roles, and the gateway."""
