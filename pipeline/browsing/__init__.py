"""A build as pages to look at: its rows from the ledger, their frames, the pages."""
