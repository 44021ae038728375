"""Quality gates of the AWS target: a configuration matrix, policy checks with waivers, and mutation testing."""
