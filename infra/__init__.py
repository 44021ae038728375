"""The Pulumi program: settings -> plan -> target."""
