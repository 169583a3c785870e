"""From one version of a model to the next, in live traffic: what is counted, what it proves, what is decided."""
