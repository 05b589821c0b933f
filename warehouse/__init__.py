"""The DuckDB warehouse: migrations, the one write connection, contracts and the published snapshot."""
