"""Measurements as tables and plots."""
