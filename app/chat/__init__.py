"""The chat: its loop, its slash commands, and what is kept of it."""
