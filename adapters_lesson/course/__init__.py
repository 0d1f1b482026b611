"""Everything that teaches, checks and draws. It uses the library; nothing in the library uses it."""
