"""Tables of the records of a grid."""
