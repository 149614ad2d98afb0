"""NetworkClient: connecting, TLS, proxies, reconnecting, the heartbeat."""
