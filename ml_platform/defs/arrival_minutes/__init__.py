"""The model arrival_minutes: how late a flight will land, in minutes."""
