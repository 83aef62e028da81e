"""The search: proposing, pruning, confirming.

command     from the options of `run` to a running search
settings    the options of a search, and the settings resolved from them
run         a search from start to end: threads, totals, deadlines
objective   one trial: ask, config, train, report, prune, tell
endings     early ends: nothing new left, or too many failures
confirm     the best trials trained again with new seeds
definition  study definitions: finding and loading them
storable    suggested values, exactly as the database returns them
sampling    samplers with a seed for every draw; pruners
study       creating a study, or resuming the same one
observers   the events of a search, and who receives them
plan        the expected cost of a search, before it starts
importance  parameter importances
space       suggestions under the name that older study files import
catalogue   a list of study definitions and stored studies
"""
