"""What is watched once a model serves: drift, performance with late labels, skew, and the alerts that follow."""
