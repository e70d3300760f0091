"""Scales a running bot up and down under load, and compares what consumers got with what Discord sent."""
