"""Where things are: tables, features, models, endpoints, streams, notebooks and terms, searched in one place."""
