"""The command line: a table of verbs and one thin file each."""
