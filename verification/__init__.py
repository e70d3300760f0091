"""Programs that verify the whole: simulation on virtual time, chaos with real processes, the cache check."""
