"""What is done to comparisons before a model learns from them."""
