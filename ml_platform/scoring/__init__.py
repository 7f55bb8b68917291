"""Scores any rows by any version: tables, files and queries into tables and files, and `predict` in SQL."""
