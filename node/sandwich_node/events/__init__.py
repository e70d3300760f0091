"""What becomes of an event between Discord and the stream: filters, and what is added to it."""
