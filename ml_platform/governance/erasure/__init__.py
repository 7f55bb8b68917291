"""Erasure: removes an entity, such as a customer, from everything the platform keeps, and proves it."""
