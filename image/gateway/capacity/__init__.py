"""What starts the first replica when none runs: one module a platform."""
