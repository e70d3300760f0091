"""What the API shows, from the cluster's view and snapshot, what an operation returned, and who asks. Pure."""
