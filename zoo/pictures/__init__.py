"""Pictures: what a model did, as PNG or as an HTML page that needs nothing else."""
