"""The study database; the one place that knows Optuna's private parts.

opening      opening the study database, after checks that change nothing
storage      the study database, with a few atomic writes
trial        a trial that this process runs: all writes from asking to telling
statements   the SQL of those writes
retry        retries while the database is locked, or its server is away
location     paths and URLs of study databases and their files
ownership    which process runs a trial, and whether it is alive
heartbeat    heartbeats of running trials, and owners silent for too long
records      the attributes of a stored trial, and reading them
artifacts    files attached to trials for optuna-dashboard
identity     a study's files after it was renamed or copied
trial_files  weights and checkpoints of trials: paths and deletion
ranking      the ranking of trials, and what seed noise leaves of it
studies      reading and deleting stored studies
interrupted  sets trials whose owner has died back to waiting
"""
