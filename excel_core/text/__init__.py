"""Class descriptions: what one must look like, the file that holds them, the instruction that asks for them, and a language
model that answers it.

    form.py         one description: its beginning, its case, its length
    files.py        excel-descriptions/1, read strictly
    instruction.py  prompts/describe.md or a user's own: a template with checked placeholders
    chat.py         an OpenAI-compatible server: one request, its retries, its errors, the key kept out of both
    asking.py       n descriptions of a class: the request, what is wrong with the reply, one round of repair
"""
