"""Who gets a model's traffic, and how that changes: labels, routes, and the steps from one version to the next."""
