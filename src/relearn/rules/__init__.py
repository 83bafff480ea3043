"""The kinds of jobs, one file each; `relearn RULE ARGUMENT` runs one."""
