"""What the documentation claims in numbers, and how it was measured: `make bench`."""
