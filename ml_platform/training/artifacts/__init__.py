"""What a trained model leaves behind: the bundle's files, plots, and the version of the code."""
