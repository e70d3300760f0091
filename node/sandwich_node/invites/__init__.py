"""By which invite a member joined. Discord does not say it; it is inferred from the use counts of the invites."""
