"""`make scale`: the control plane of a very large cluster, with the real coordination code on virtual time."""
