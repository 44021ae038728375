"""The gates of the AWS target: a matrix of configurations, policy checks with waivers, single faults for the tests."""
