"""Feature views, point-in-time joins, features of the request, and the online store."""
