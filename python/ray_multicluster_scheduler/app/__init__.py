"""Published import path: `client_api` is in here."""
