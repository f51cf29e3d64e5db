"""Class texts: prompts, descriptions and where they come from, text embeddings, and the knowledge base made of them.

prompts.py            a class set: names, synonyms, template, background prompts
class_sets.py         a run's class set and its descriptions that exist already, by name or file
descriptions.py       excel-descriptions/1, read strictly, and the form of a description
user_descriptions.py  descriptions of other authors, in either form of JSON
llm_descriptions.py   n descriptions of a class from a language model: instruction, checks, one round of repair
chat.py               an OpenAI-compatible server: requests, retries, errors; the key is kept out of messages
embeddings.py         text embeddings, each encoded once
attributes_file.py    ready attributes instead of k-means
knowledge.py          descriptions → attributes → T_c (ExCEL eqs. 2-4)
knowledge_diff.py     two knowledge bases compared
checked_yaml.py       YAML and JSON whose errors name file, line and field
"""
