"""The one error of a rendering that is the user's to mend."""


class DeployError(ValueError):
    """The account or cluster cannot hold this stack; the message says what was found and what to set instead."""
