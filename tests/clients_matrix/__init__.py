"""Real clients in front of a real gateway process; `make test-clients` installs them and writes docs/clients.md."""
