"""OpenAI, and every server that speaks its API: vLLM, Groq, Together, Mistral, Ollama and many more.

Source: platform.openai.com's API reference (authentication, error codes).
"""

from typing import Final

from gateway.providers.base import HeaderPairs, Vendor


def _credential(api_key: str) -> HeaderPairs:
    return ((b"authorization", b"Bearer " + api_key.encode("latin-1")),)


OPENAI: Final = Vendor(kind="openai", dialect="openai", base_url="https://api.openai.com/v1", credential=_credential)
