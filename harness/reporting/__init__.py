"""Parts of reports that several commands and formats share."""
