"""The decoder, its heads, and Hugging Face directories in and out."""
