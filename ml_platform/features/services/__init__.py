"""Features as a service: the newest values of views, and of services made of several, for whoever has the keys."""
