"""Tests of the project's own definitions."""
