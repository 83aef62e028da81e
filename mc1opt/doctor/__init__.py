"""`mc1opt doctor`: is all well?

checks     is all well with packages and machine, and all checks in a row
storage    is all well with disk, SQLite and images?
database   is all well with the study database and running trials?
diagnosis  what those checks have found, as JSON and as text
"""
