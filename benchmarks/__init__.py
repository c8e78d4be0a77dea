"""Measurements: run by hand, never by tests."""
