"""Which channels are tied, what each costs, and their physical removal."""
