"""Who may do what over the HTTP API: roles, identities, and the records they are kept in."""
