"""Two tables of one task over the same items, compared row by row."""
