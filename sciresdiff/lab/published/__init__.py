"""Networks that others trained, recognised by the names and shapes of their weights and used as a prior."""
