"""Lower bounds on the channel-selection program."""
