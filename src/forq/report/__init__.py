"""Reports about runs, as one HTML page and as TensorBoard files.

A report is made from the files in the folders of the runs. It loads no model and reads no
checkpoint, so a folder may have been moved.
"""
