"""The Pulumi program: settings to plan to target."""
