"""From a folder of models to versions that serve: what is there, what of it is wanted, whether it is right."""
