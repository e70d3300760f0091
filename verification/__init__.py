"""Programs that verify whole clusters: simulation on virtual time, chaos with real processes, the cache check."""
