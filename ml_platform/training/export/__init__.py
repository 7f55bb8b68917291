"""Export of trained models to ONNX, and the check that it gives the same scores."""
