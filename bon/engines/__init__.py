"""Where the work of a stage runs: in one process of its own, or on a cluster."""
