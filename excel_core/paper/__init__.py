"""The paper's tables and figures: the runs they compare, the published numbers, and the arrays that are drawn.

published.py    published numbers
tables.py       the rows of each table: runs, results, and published numbers
figures.py      figures 4 to 6: CAMs as the method grows, responses to attributes, the attention of one patch
"""
