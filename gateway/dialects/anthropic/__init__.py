"""Anthropic's wire format: messages, token counts and the message event stream."""
