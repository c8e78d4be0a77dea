"""What is shown: tables, figures and pages in one style."""
