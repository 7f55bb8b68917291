"""Feature views: declared, loaded, computed and kept up to date."""
