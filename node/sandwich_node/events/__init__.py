"""Events between Discord and the stream: filters, and the fields that are added."""
