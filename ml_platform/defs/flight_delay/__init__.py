"""The model flight_delay: will a flight land 15 or more minutes late."""
