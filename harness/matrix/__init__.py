"""Matrix files: loading, schema, coverage and suggestions for it."""
