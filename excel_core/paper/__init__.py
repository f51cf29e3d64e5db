"""The paper's tables and figures: the runs they compare, the published figures, and the arrays that are drawn.

published.py            published figures
tables.py               the rows of each table: runs, results, and published figures
cam_columns.py          figure 4: CAMs as the method grows
attribute_responses.py  figure 5: the response of an image to the attributes of a class
query_patch.py          figure 6: the attention of one patch
"""
