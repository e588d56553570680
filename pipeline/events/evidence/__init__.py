"""Evidence of events: a clip, pictures and the last message, in a folder for each event."""
