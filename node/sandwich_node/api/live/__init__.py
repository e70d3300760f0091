"""What goes on while a reader stays: changes of the cluster, events, log lines, each as server-sent events."""
