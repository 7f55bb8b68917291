"""Plain code that runs here and is copied into notebooks as it stands, so that both compute the same numbers.

Functions of these modules import no `ml_platform`, and libraries inside themselves.
"""
