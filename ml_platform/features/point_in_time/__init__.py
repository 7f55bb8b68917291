"""Point-in-time joins: to each row the values that were known at its timestamp."""
