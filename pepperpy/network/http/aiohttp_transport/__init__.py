"""The exchange of one request and one answer by way of aiohttp."""
