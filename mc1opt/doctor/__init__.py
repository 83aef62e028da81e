"""`mc1opt doctor`: checks packages, machine, images and database.

checks     checks of packages and machine; runs all checks in a row
disk       checks of disk space, SQLite version and cached images
database   checks of the study database and of running trials
diagnosis  the findings as JSON and as text
"""
