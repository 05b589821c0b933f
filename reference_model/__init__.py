"""The embedded default model: a seeded synthetic world, a tokenizer, a small Llama and its trainer.

It exists to validate Steelyard's pipeline without a GPU, a network or an account. It says nothing about
the quality or the safety of any real model.
"""
