"""The dashboard: web pages over the HTTP API. Their sources are in `dashboard/`; `make dashboard` builds `static/`."""
