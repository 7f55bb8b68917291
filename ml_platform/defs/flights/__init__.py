"""The example: flights that left New York in 2013."""
