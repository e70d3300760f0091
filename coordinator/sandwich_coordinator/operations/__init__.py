"""What an operator can do with a cluster, apart from any command line."""
