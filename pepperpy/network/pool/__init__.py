"""NetworkPool: connected clients that are lent."""
