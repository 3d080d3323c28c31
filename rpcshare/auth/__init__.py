"""Who is asking: callers, their credentials, the pages they call from, the server's secrets."""
