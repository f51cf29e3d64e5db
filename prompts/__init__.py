"""Prompts as data: class names, synonyms, background prompts, descriptions and their instruction."""
