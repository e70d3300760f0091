"""The agent: a node's one process that talks to etcd, leads when it is its turn, and supervises the workers."""
