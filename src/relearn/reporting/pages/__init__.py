"""`relearn report` and `relearn diff`: the results of a grid as one HTML page, and two sets of results compared."""
