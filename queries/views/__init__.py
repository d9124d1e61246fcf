"""The atlas as tables: DuckDB views, conditions and labels."""
