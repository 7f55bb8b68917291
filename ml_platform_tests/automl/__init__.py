"""Tests of AutoML."""
