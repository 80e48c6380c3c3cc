"""One file per command; see :class:`mipprune.cli._command.Command`."""
