"""The command line: words become calls; what they do is elsewhere."""
