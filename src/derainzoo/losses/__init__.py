"""Losses: plain functions of (output, target) that return a scalar, one file a family, and their weighted sum."""
