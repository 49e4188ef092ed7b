"""The command line `preceptor`."""
