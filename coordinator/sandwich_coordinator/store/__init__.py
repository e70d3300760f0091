"""Where the cluster keeps what must survive: etcd behind a small contract."""
