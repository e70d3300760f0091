"""The measurements behind the documented figures: `make bench`."""
