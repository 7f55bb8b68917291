"""From a request's body to checked rows and their features."""
