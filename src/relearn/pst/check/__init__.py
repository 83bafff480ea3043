"""`relearn check`: is this data really unlearnable? It needs no params.yaml (docs/check.md)."""
