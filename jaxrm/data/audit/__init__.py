"""What is in a preference data set, before one trains on it."""
