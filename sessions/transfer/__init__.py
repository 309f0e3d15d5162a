"""Moving conversations out of a database and into one.

`records` says what a file holds, `exporting` writes it, `importing` reads it, `foreign` turns other programs' exports into the
same records, `readable` writes what people read and spreadsheets take.
"""
