"""The study database. The only package that uses Optuna's private API.

opening      opens the study database, after checks that change nothing
storage      Optuna's storage, with a few atomic writes of our own
statements   the SQL of the storage's own writes
trial        a trial that this process runs: all writes on it from asking to telling
commit       commits on PostgreSQL whose answer was lost, and those that never come
retry        retries while the database is locked, or its server is away
location     paths and URLs of study databases and their files
ownership    which search process runs a trial, and whether it is alive
heartbeat    heartbeats of running trials; finds trials without one
interrupted  sets trials whose search process has died back to waiting
study_attributes  the attributes of a stored study
records      the attributes of a stored trial, and reading them
memory       what was found out of a finished trial, remembered
rows         trials as the rows of a table
ranking      the best trials, and which of them seed noise cannot separate
studies      reads and deletes stored studies
trial_files  weights and checkpoints of trials: their paths, and which are deleted
artifacts    files attached to trials for optuna-dashboard
identity     which folder of files belongs to a study that was renamed or copied
"""
