"""Discord's REST API as the data plane asks it: in the background, sparingly, within every limit Discord states."""
