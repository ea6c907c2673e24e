"""The command lines: a file each, or a folder with one file for each command."""
