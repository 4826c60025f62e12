"""Bad input of every kind, given to the real commands: one line, exit code 2, nothing touched."""
