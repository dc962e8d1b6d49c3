"""Downloads: one file over HTTP, retried, resumed, verified, cached."""
