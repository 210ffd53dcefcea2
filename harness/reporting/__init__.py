"""Parts of reports shared by several commands and formats."""
