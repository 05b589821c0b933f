"""A served engine as a context manager: vllm, transformers, attach, fake."""

from steelyard.engines.base import Deployment, Engine
from steelyard.engines.serving import serve

__all__ = ["Deployment", "Engine", "serve"]
