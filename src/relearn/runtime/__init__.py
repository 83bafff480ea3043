"""The machine: devices, processors, random generators, files and progress."""
