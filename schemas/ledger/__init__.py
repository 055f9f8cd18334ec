"""The DuckDB ledger of builds, runs and audits."""
