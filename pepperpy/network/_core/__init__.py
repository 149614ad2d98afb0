"""The compiled modules, from `ext/pepperpy/network/_core/`: one connection, its directions, where messages end."""
