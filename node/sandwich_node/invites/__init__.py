"""By which invite somebody joined: counted, asked for and inferred, since Discord does not say."""
