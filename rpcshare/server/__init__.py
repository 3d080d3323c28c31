"""The server: an ASGI application over the domain, and what runs it."""
