"""The protocols that callers already speak: MLflow, Databricks, Open Inference, and the formats of their bodies."""
