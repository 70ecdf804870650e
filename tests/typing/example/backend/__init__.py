"""A chat: channels, messages, somebody who answers from an encyclopedia."""
