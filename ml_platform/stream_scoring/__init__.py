"""Answers the messages of a stream by the version that serves, as HTTP would answer each."""
