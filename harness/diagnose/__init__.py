"""What reads the records and says why."""
