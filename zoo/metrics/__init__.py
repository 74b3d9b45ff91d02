"""Metrics: scores by the libraries that define them."""
