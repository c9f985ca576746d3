"""Who is calling: keys, where they are kept, and how a running gateway learns of changes."""
