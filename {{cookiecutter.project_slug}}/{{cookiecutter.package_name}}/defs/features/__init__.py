"""Feature views, one file each."""
