"""Figures of the records, histories and runs of a grid."""
