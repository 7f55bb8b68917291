"""Commands of `ml-platform` about tables: SQL, versions, quarantine."""
