"""How records become tables and figures."""
