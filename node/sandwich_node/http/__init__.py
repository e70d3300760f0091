"""What a node answers over HTTP: health, metrics and its own status. Nothing here changes anything."""
