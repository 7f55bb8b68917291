"""The platform's processes on one machine: which there are, how they are started, watched and ended."""
