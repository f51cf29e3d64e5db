"""The paper's tables and figures: which runs they compare, what was published, and what figures show.

published.py            published figures
tables.py               the rows of each table: runs, results, and what was published of them
cam_columns.py          figure 4: CAMs as the method grows
attribute_responses.py  figure 5: where an image answers to the attributes of a class
query_patch.py          figure 6: what one patch looks at
"""
