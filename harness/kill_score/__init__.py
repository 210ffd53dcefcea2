"""Kill score: every planted bug, found or missed, beside the gates of other projects."""
