"""Measuring networks: what they cost."""
