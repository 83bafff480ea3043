"""Poisoned images in files of others: import, export, and a folder of images in one command."""
