"""From a source's rows to a table: those that meet the contract, and the quarantine of the others."""
