"""Whole circuits run many at once: edges inside carry this run's values, edges outside others."""
