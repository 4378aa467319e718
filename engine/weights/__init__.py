"""Model files, ours and those of other frameworks."""
