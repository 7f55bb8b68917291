"""Versioned tables, a feature store, tracked training, gated releases, serving and monitoring on your own machines."""

import os

# Nothing phones home, and on a closed network a blocked call is a hang: every library's telemetry is off from the first
# import on. What a user has set explicitly stays as it is.
for _name, _value in {
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar per plot in the log of every step
    "RAY_USAGE_STATS_ENABLED": "0",
    "ANONYMIZED_TELEMETRY": "false",
}.items():
    os.environ.setdefault(_name, _value)

# OpenMP threads that wait by spinning starve each other wherever cores are shared: the same LightGBM fit took 57 s
# instead of 5 s beside other work. Read when the library loads, so it is set before anything can load it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
