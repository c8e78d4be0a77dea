"""A study of many training runs: its records, what they claim, and the page that says so."""
