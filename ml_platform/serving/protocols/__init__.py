"""Other protocols that clients use (MLflow, Databricks, Open Inference), and the formats of their bodies."""
