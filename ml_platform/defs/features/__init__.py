"""Feature views of the flights example, one SQL file each."""
