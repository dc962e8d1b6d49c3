"""Somebody uses the model: a server on this machine, its page, and the same page as a folder that needs no server."""
