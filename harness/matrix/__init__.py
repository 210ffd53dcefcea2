"""Matrix files: loading, schema, selection of rows, coverage and suggestions."""
