"""OpenAI's wire formats: chat, completions, responses, embeddings, images, audio and their event streams."""
