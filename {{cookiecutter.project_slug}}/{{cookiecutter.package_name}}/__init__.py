"""What this project defines: where its data come from, features, models."""
