"""What the API shows: models, and how they follow from the cluster's view, its snapshot and who asks. Pure."""
