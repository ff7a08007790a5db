"""Adapters for frameworks, each an extra. Start reading at the module that has the framework's name."""
