"""The paper's tables and figures: which runs they compare, what was published, and what figures show.

published.py    published figures, with their protocols
tables.py       the rows of each table: runs and results
"""
