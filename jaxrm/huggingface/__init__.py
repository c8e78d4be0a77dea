"""Model directories in Hugging Face's layouts, read and written."""
