"""Dataset layouts on disk: readers, writers, conversion and inspection."""
