"""The files of the dashboard as the browser gets them; edge/page.py serves them."""
