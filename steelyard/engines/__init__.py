"""A served engine as a context manager: vllm, transformers, attach, fake."""
