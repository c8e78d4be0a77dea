"""One file per paper or question."""
