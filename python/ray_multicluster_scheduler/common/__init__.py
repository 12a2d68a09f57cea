"""Published import path: `exception` and `model` are in here."""
