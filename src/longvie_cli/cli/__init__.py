"""The `longvie` command: flags in, one line out, errors to exit codes. All printing is here."""
