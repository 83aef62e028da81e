"""The study database; the one place that knows Optuna's private parts.

opening      opening the study database: what is refused, and left as it is
storage      the study database, and its few atomic writes
trial        a trial that this process runs: what is written on it from asking to telling
statements   the SQL of those writes
retry        trying again where the database is locked, or its server is away
location     where the study database is: a path or a URL
ownership    which process runs a trial, and whether it is alive
heartbeat    signs of life of running trials, and who has been silent too long
records      what is where on a stored trial, and reading it back
artifacts    files that belong to trials: where they lie, and whose they are
identity     whose files are whose, after a study was renamed or copied
trial_files  where weights and checkpoints of trials lie, and which ones go
ranking      which trials are the best, and which seeds tell apart
studies      reading stored studies and deleting them
interrupted  trials whose owner has died, set back to waiting
"""
