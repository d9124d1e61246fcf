"""The atlas as tables: DuckDB views, lookups, conditions, labels."""
