"""A detector's evaluation: metrics.json, plots, cases, report."""
