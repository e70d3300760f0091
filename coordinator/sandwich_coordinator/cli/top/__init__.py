"""`sandwich top`: the cluster in a terminal, kept up to date, operated with keys."""
