"""Study definitions: what to search. Plain Python, to copy and to edit."""
