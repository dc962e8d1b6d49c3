"""A classifier's evaluation: metrics.json, plots, mistakes, report."""
