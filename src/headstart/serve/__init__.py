"""The exported model in use: a server on this machine, its page, and the page as a static demo."""

__all__ = ["demo", "server"]
