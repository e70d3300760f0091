"""The routes by resource. Each module has `ROUTES`; `table.py` joins them."""
